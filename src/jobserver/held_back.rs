//! The reason why a token is not let out.

use crate::vocabulary::Verdict;

/// Why a token is not let out.
#[derive(Debug, Clone)]
pub(super) enum HeldBack {
    Verdict(Box<Verdict>),
    /// As many are out as there are.
    AllOut,
    /// The first step of each kind is watched first.
    Learning,
    /// The jobserver above has none.
    Outer,
}

impl HeldBack {
    pub(super) fn word(&self) -> String {
        match self {
            HeldBack::Verdict(verdict) => match verdict.resource() {
                Some(resource) => resource.to_string(),
                None => "want of a check".into(),
            },
            HeldBack::AllOut => "the number of tokens".into(),
            HeldBack::Learning => "the first step of a kind".into(),
            HeldBack::Outer => "the jobserver above".into(),
        }
    }
}
