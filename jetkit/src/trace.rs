//! Trace context (W3C Recommendation, level 1): taken from a request, kept on every message that it leads to.

#[cfg(feature = "jetstream")]
use async_nats::header::HeaderMap;

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";

/// The longest `tracestate` that is passed on.
const MAX_STATE: usize = 512;

/// The trace that a request or an event belongs to. It is passed on as it came: the kit makes no spans of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    parent: String,
    state: Option<String>,
}

impl TraceContext {
    /// From the values of `traceparent` and `tracestate`. [`None`] if the first is not valid, for then the trace is to be
    /// forgotten; a state that is too long or not printable is left out.
    pub fn new(parent: &str, state: Option<&str>) -> Option<Self> {
        let legal = |state: &&str| {
            (1..=MAX_STATE).contains(&state.len()) && state.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        };
        let state = state.filter(legal).map(str::to_owned);
        is_parent(parent).then(|| Self { parent: parent.to_owned(), state })
    }

    /// `traceparent`: `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`.
    pub fn parent(&self) -> &str {
        &self.parent
    }

    /// `tracestate`, if there is one.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// What the headers of a message say.
    #[cfg(feature = "jetstream")]
    pub(crate) fn of(headers: Option<&HeaderMap>) -> Option<Self> {
        let headers = headers?.iter();
        Self::of_headers(headers.flat_map(|(name, values)| {
            let name: &str = name.as_ref();
            values.iter().map(move |value| (name, value.as_str()))
        }))
    }

    /// What the headers of an HTTP request say.
    #[cfg(feature = "http")]
    pub(crate) fn of_request(headers: &axum::http::HeaderMap) -> Option<Self> {
        // What is no text is no trace and no state, but stands there.
        Self::of_headers(
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default())),
        )
    }

    /// Names in whatever case, for NATS keeps it. A second `traceparent` leaves none; `tracestate` may stand there several
    /// times.
    fn of_headers<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let (mut parents, mut states) = (Vec::new(), Vec::new());
        for (name, value) in headers {
            if name.eq_ignore_ascii_case(PARENT) {
                parents.push(value);
            } else if name.eq_ignore_ascii_case(STATE) && !value.is_empty() {
                states.push(value);
            }
        }
        let [parent] = parents[..] else { return None };
        Self::new(parent, Some(&states.join(",")))
    }

    #[cfg(feature = "jetstream")]
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(PARENT, self.parent.as_str());
        if let Some(state) = &self.state {
            headers.insert(STATE, state.as_str());
        }
    }
}

/// `version-trace id-parent id-flags`, in lower-case hexadecimal digits. What a later version adds comes after a dash.
fn is_parent(text: &str) -> bool {
    let mut fields = text.splitn(5, '-');
    let mut next = |len: usize| {
        let field = fields.next().filter(|field| field.len() == len)?;
        field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).then_some(field)
    };
    let (version, trace, parent, flags) = (next(2), next(32), next(16), next(2));
    let more = fields.next();
    let is_set = |id: Option<&str>| id.is_some_and(|id| id.bytes().any(|byte| byte != b'0'));
    let version_fits = match version {
        Some("00") => more.is_none(),
        Some("ff") | None => false,
        Some(_) => {
            text.len() <= MAX_STATE
                && more.is_none_or(|more| more.bytes().all(|byte| byte.is_ascii_graphic()))
        }
    };
    version_fits && is_set(trace) && is_set(parent) && flags.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn only_a_valid_trace_is_passed_on() {
        let later = format!("cc{}-what-comes", &PARENT[2..]);
        for valid in [PARENT, &later] {
            assert_eq!(TraceContext::new(valid, None).unwrap().parent(), valid);
        }
        for invalid in [
            "",
            "00",
            &PARENT.to_uppercase(),
            &format!("ff{}", &PARENT[2..]),
            &format!("{PARENT}-more"),
            &PARENT[..54],
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            &format!("cc{}-a\r\nb: c", &PARENT[2..]),
        ] {
            assert_eq!(TraceContext::new(invalid, None), None, "{invalid}");
        }
    }

    #[test]
    fn a_state_that_is_none_does_not_cost_the_trace() {
        for (state, kept) in [("a=1,b=2", true), ("", false), ("a\nb", false), (&"a".repeat(513), false)] {
            let trace = TraceContext::new(PARENT, Some(state)).unwrap();
            assert_eq!(trace.state(), kept.then_some(state));
        }
    }

    /// The same headers, on a message and on a request.
    #[cfg(feature = "http")]
    fn of_both(headers: &[(&str, &str)]) -> [Option<TraceContext>; 2] {
        let (mut message, mut request) = (HeaderMap::new(), axum::http::HeaderMap::new());
        for (name, value) in headers {
            message.append(*name, *value);
            let name: axum::http::HeaderName = name.parse().unwrap();
            request.append(name, value.parse().unwrap());
        }
        [TraceContext::of(Some(&message)), TraceContext::of_request(&request)]
    }

    #[test]
    #[cfg(feature = "http")]
    fn a_message_and_a_request_are_read_by_the_same_rules() {
        let trace = |state| TraceContext::new(PARENT, state);
        for (headers, expected) in [
            (&[("traceparent", PARENT)][..], trace(None)),
            (&[("Traceparent", PARENT), ("TRACESTATE", "a=1")], trace(Some("a=1"))),
            (
                &[("tracestate", "a=1"), ("traceparent", PARENT), ("tracestate", "b=2")],
                trace(Some("a=1,b=2")),
            ),
            (&[("traceparent", PARENT), ("tracestate", ""), ("tracestate", "b=2")], trace(Some("b=2"))),
            (&[("traceparent", PARENT), ("traceparent", PARENT)], None),
            (&[("traceparent", PARENT), ("TraceParent", PARENT)], None),
            (&[("tracestate", "a=1")], None),
            (&[], None),
        ] {
            assert_eq!(of_both(headers), [expected.clone(), expected], "{headers:?}");
        }
    }
}
