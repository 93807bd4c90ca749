//! Drift: a configuration on the server is compared with the wanted one, field by field, and every field has an owner.
//!
//! The tables of owners stand next to what they are about: streams in `provision.rs`, durables in `consumer/durable.rs`.
//! Both work on JSON, so that a field of a newer server survives an update.

use serde_json::Value;

/// Whose a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Ours: it is put back.
    Ours,
    /// Ours where the program says something, or where the stream keeps all that it has; the operator's elsewhere.
    OursToKeep,
    /// Ours, except that the server turns it on with schedules, for good.
    OursUnlessScheduled,
    /// Ours where the program says something, the operator's elsewhere.
    OursIfSaid,
    /// Ours, and the releases of a program may differ in it: it is put back at a start, and reported while running.
    OursByRelease,
    /// Ours, and the server does not change it: another value is refused.
    Fixed,
    /// Ours to raise, and never lowered.
    AtLeast,
    /// A list to which others may add.
    Union,
    /// The operator's: it is kept.
    Operators,
}

/// Every field of a configuration, by its name on the wire.
pub(crate) type Owners = &'static [(&'static str, Owner)];

/// Makes a table of owners that names every field of the client's type `Config`. A field that a newer client brings does
/// not compile until it has an owner.
macro_rules! owners {
    ($($field:ident $(as $name:literal)? : $owner:ident),* $(,)?) => {{
        fn _names_every_field(Config { $($field: _),* }: &Config) {}
        &[$(($crate::drift::owners!(@name $field $($name)?), $crate::drift::Owner::$owner)),*]
    }};
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $name:literal) => { $name };
}
pub(crate) use owners;

/// When a configuration is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A program starts: its release is the one that counts.
    Start,
    /// A program runs, perhaps beside another release of itself.
    Running,
}

/// What is wanted, and whose each field of it is.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) config: Value,
    owners: Owners,
}

impl Wanted {
    pub(crate) fn new(config: Value, owners: Owners) -> Self {
        Self { config, owners }
    }

    /// The current configuration with everything put right that can be.
    pub(crate) fn merged_into(&self, current: &Value, moment: Moment) -> Value {
        let mut next = current.clone();
        for (field, owner) in self.owners {
            let (is, wanted) = (&current[field], &self.config[field]);
            let kept = match owner {
                Owner::Operators | Owner::Fixed => true,
                Owner::OursIfSaid => is_nothing(wanted),
                Owner::OursToKeep => is_nothing(wanted) && !self.keeps_all(),
                Owner::OursUnlessScheduled => is_nothing(wanted) && current["allow_msg_schedules"] == true,
                Owner::OursByRelease => moment == Moment::Running,
                Owner::AtLeast => {
                    is_nothing(wanted) || is.as_i64().unwrap_or(0) >= wanted.as_i64().unwrap_or(0)
                }
                Owner::Ours | Owner::Union => false,
            };
            if kept {
                continue;
            }
            let wanted = if *owner == Owner::Union { &union(is, wanted) } else { wanted };
            if is_same(is, wanted) {
                continue;
            }
            match (wanted, next.as_object_mut()) {
                // What the server does not find, it takes for its default.
                (Value::Null, Some(next)) => drop(next.remove(*field)),
                _ => next[field] = wanted.clone(),
            }
        }
        next
    }

    /// Whether it is a stream that loses nothing by itself: it refuses what is new when it is full, or holds schedules.
    pub(crate) fn keeps_all(&self) -> bool {
        self.config["discard"] == "new" || self.config["allow_msg_schedules"] == true
    }

    /// What nothing puts right: another value in a field that the server never changes, and while running what another
    /// release may want.
    pub(crate) fn refused(&self, current: &Value, moment: Moment) -> Vec<String> {
        let refused = self.owners.iter().filter(|(field, owner)| {
            let counts =
                *owner == Owner::Fixed || (*owner == Owner::OursByRelease && moment == Moment::Running);
            counts && !is_same(&current[field], &self.config[field])
        });
        refused.map(|(field, _)| difference(field, &current[field], &self.config[field])).collect()
    }
}

/// `field: is A, must be B`, for people.
pub(crate) fn differences(current: &Value, next: &Value) -> Vec<String> {
    let fields =
        |of: &Value| of.as_object().into_iter().flatten().map(|(field, _)| field.clone()).collect::<Vec<_>>();
    let mut all = fields(current);
    all.extend(fields(next).into_iter().filter(|field| current.get(field).is_none()));
    all.iter()
        .filter(|field| !is_same(&current[field.as_str()], &next[field.as_str()]))
        .map(|field| difference(field, &current[field.as_str()], &next[field.as_str()]))
        .collect()
}

fn difference(field: &str, is: &Value, wanted: &Value) -> String {
    match wanted {
        Value::Null => format!("{field}: is {is}, must not be set"),
        wanted => format!("{field}: is {is}, must be {wanted}"),
    }
}

/// Whether two values mean the same. Lists are sets.
fn is_same(one: &Value, other: &Value) -> bool {
    if let (Value::Array(one), Value::Array(other)) = (one, other) {
        let within = |some: &[Value], all: &[Value]| some.iter().all(|value| all.contains(value));
        return within(one, other) && within(other, one);
    }
    one == other || (is_nothing(one) && is_nothing(other))
}

/// Whether a value says nothing: the server writes its defaults in many ways.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_i64().is_some_and(|number| number <= 0),
        Value::String(text) => ["", "none", "default"].contains(&text.as_str()),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// Both lists, without what another subject of the list covers.
fn union(current: &Value, wanted: &Value) -> Value {
    let texts = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let mut union = texts(current);
    for subject in texts(wanted) {
        if !union.iter().any(|pattern| covers(pattern, &subject)) {
            union.retain(|other| !covers(&subject, other));
            union.push(subject);
        }
    }
    union.into()
}

/// Whether every subject that `subject` matches is matched by `pattern` too.
fn covers(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn covering_follows_the_rules_of_subjects() {
        for (pattern, subject) in
            [(">", "order.>"), ("order.>", "order.placed"), ("order.*", "order.*"), ("a.b", "a.b")]
        {
            assert!(covers(pattern, subject), "{pattern} {subject}");
        }
        for (pattern, subject) in
            [("order.>", "order"), ("order.*", "order.>"), ("a.b", "a"), ("a", "a.b"), ("a.>", ">")]
        {
            assert!(!covers(pattern, subject), "{pattern} {subject}");
        }
    }

    #[test]
    fn subjects_are_added_and_never_taken_away() {
        assert_eq!(union(&json!(["a.>", "b.>"]), &json!(["b.>", "c.>"])), json!(["a.>", "b.>", "c.>"]));
        assert_eq!(union(&json!([">"]), &json!(["a.>"])), json!([">"]));
        assert_eq!(union(&json!(["a.x.>", "b.>"]), &json!(["a.>"])), json!(["b.>", "a.>"]));
    }

    const OWNERS: Owners = &[
        ("ours", Owner::Ours),
        ("said", Owner::OursIfSaid),
        ("release", Owner::OursByRelease),
        ("fixed", Owner::Fixed),
        ("size", Owner::AtLeast),
        ("free", Owner::Operators),
    ];

    #[test]
    fn each_field_is_put_back_kept_or_refused_as_its_owner_says() {
        let wanted = Wanted::new(json!({"release": ["a", "b"], "fixed": "file", "size": 3}), OWNERS);
        let current = json!({
            "ours": true, "said": 7, "release": ["a"], "fixed": "memory", "size": 1, "free": "x", "unknown": 1,
        });
        let next = wanted.merged_into(&current, Moment::Start);
        let put_back = json!({
            "said": 7, "release": ["a", "b"], "fixed": "memory", "size": 3, "free": "x", "unknown": 1,
        });
        assert_eq!(next, put_back);
        assert_eq!(
            differences(&current, &next),
            [
                "ours: is true, must not be set",
                r#"release: is ["a"], must be ["a","b"]"#,
                "size: is 1, must be 3"
            ]
        );
        assert_eq!(wanted.refused(&current, Moment::Start), [r#"fixed: is "memory", must be "file""#]);
        assert_eq!(wanted.merged_into(&current, Moment::Running)["release"], json!(["a"]));
        assert_eq!(wanted.refused(&current, Moment::Running).len(), 2);
        assert_eq!(wanted.merged_into(&json!({"size": 5}), Moment::Start)["size"], 5, "it is never lowered");
    }

    #[test]
    fn a_default_is_the_same_however_the_server_writes_it() {
        let wanted = Wanted::new(json!({"release": ["a", "b"], "fixed": "none"}), OWNERS);
        for ours in [json!(null), json!(false), json!(0), json!(-1), json!(""), json!([]), json!({})] {
            let current = json!({"ours": ours, "release": ["b", "a"], "fixed": null});
            assert_eq!(wanted.merged_into(&current, Moment::Start), current);
            assert_eq!(wanted.refused(&current, Moment::Running), Vec::<String>::new());
        }
    }
}
