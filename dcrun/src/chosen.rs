//! The protocol that a user chose: one of the seven, or to be chosen by what
//! things cost.

use std::fmt;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use protocols::Protocol;

const AUTO: &str = "auto";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    Fixed(Protocol),
    Auto,
}

impl Chosen {
    pub fn name(self) -> &'static str {
        match self {
            Chosen::Fixed(protocol) => protocol.name(),
            Chosen::Auto => AUTO,
        }
    }

    pub fn from_name(name: &str) -> Option<Chosen> {
        match name {
            AUTO => Some(Chosen::Auto),
            name => Protocol::from_name(name).map(Chosen::Fixed),
        }
    }

    /// The protocol that a run begins with.
    pub fn first(self) -> Protocol {
        match self {
            Chosen::Fixed(protocol) => protocol,
            Chosen::Auto => Protocol::Cbndvs,
        }
    }

    /// The names that a command line may have.
    pub fn parser() -> impl TypedValueParser<Value = Chosen> {
        let names = Protocol::ALL.map(Protocol::name).into_iter().chain([AUTO]);
        PossibleValuesParser::new(names)
            .map(|name| Chosen::from_name(&name).expect("only these names are possible"))
    }
}

impl Default for Chosen {
    fn default() -> Self {
        Chosen::Fixed(Protocol::Cbndvs)
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        let all = Protocol::ALL.map(Chosen::Fixed).into_iter();
        for chosen in all.chain([Chosen::Auto]) {
            assert_eq!(Chosen::from_name(chosen.name()), Some(chosen));
        }
        assert_eq!(Chosen::from_name("none"), None);
    }
}
