"""What Schemathesis leaves out when it asks the services."""

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    """A position that the log has not reached is waited for, and then answered with a documented 503: it has tests of
    its own. Anything that is no position is asked for as it is."""
    position = (case.query or {}).get("min_sequence")
    if str(position).isdecimal():
        case.query["min_sequence"] = 0
