//! Every row of the list of Node's own tests, and what became of it here.

pub(crate) mod channel;
pub(crate) mod life;
pub(crate) mod listening;
pub(crate) mod missing;

/// What became of a guarantee.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    /// As there.
    Met,
    /// The same guarantee, told in other words.
    Adapted,
    /// It has no meaning here.
    NotApplicable,
    /// Not there yet.
    NotYet,
    /// Not so, on purpose or not.
    NotMet,
}

impl Status {
    pub(crate) const ALL: [Status; 5] =
        [Status::Met, Status::Adapted, Status::NotApplicable, Status::NotYet, Status::NotMet];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Status::Met => "met",
            Status::Adapted => "adapted",
            Status::NotApplicable => "not applicable",
            Status::NotYet => "not yet",
            Status::NotMet => "not met",
        }
    }
}

/// One of Node's tests.
pub(crate) struct Row {
    /// Its name, without `test-cluster-` and without `.js`.
    pub(crate) theirs: &'static str,
    /// What it pins down.
    pub(crate) what: &'static str,
    pub(crate) status: Status,
    /// Our tests: file and function, `life::basic` for one in `tests/node`, `tests/handoff.rs::..` for others.
    pub(crate) ours: &'static [&'static str],
    /// How it differs, or why it is not there.
    pub(crate) note: &'static str,
}

const fn row(
    status: Status,
    theirs: &'static str,
    what: &'static str,
    ours: &'static [&'static str],
    note: &'static str,
) -> Row {
    Row { theirs, what, status, ours, note }
}

pub(crate) const fn met(theirs: &'static str, what: &'static str, ours: &'static [&'static str]) -> Row {
    row(Status::Met, theirs, what, ours, "")
}

pub(crate) const fn adapted(
    theirs: &'static str,
    what: &'static str,
    ours: &'static [&'static str],
    note: &'static str,
) -> Row {
    row(Status::Adapted, theirs, what, ours, note)
}

/// No meaning here: why.
pub(crate) const fn none(theirs: &'static str, what: &'static str, note: &'static str) -> Row {
    row(Status::NotApplicable, theirs, what, &[], note)
}
