//! Definition 2: what an onlooker takes for the same.
//!
//! A recovered run may repeat what it has shown before, at any later time; otherwise it must show
//! just what a failure-free run shows, in its order. Less would be of no use, and more (that nothing
//! is ever repeated) needs visible events that can be tested and undone.

/// How what was shown compares with what a failure-free run shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Comparison<T> {
    /// The same, but for that many repetitions.
    Equivalent { repeated: usize },
    /// As far as it goes; the run was not complete.
    Begins { repeated: usize, missing: usize },
    /// At that place something is shown that is neither next nor a repetition.
    Differs {
        at: usize,
        shown: T,
        expected: Option<T>,
    },
}

/// Compares what a run with failures has shown with what one without has.
pub fn compare<T: PartialEq + Clone>(shown: &[T], failure_free: &[T]) -> Comparison<T> {
    let mut next = 0;
    let mut repeated = 0;
    for (at, event) in shown.iter().enumerate() {
        if failure_free.get(next) == Some(event) {
            next += 1;
        } else if shown[..at].contains(event) {
            repeated += 1;
        } else {
            let expected = failure_free.get(next).cloned();
            return Comparison::Differs {
                at,
                shown: event.clone(),
                expected,
            };
        }
    }
    match failure_free.len() - next {
        0 => Comparison::Equivalent { repeated },
        missing => Comparison::Begins { repeated, missing },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_overlooked_and_nothing_else() {
        let compare = |shown: &str, legal: &str| {
            compare(
                &shown.chars().collect::<Vec<_>>(),
                &legal.chars().collect::<Vec<_>>(),
            )
        };
        assert_eq!(
            compare("abc", "abc"),
            Comparison::Equivalent { repeated: 0 }
        );
        assert_eq!(
            compare("abbc", "abc"),
            Comparison::Equivalent { repeated: 1 }
        );
        assert_eq!(
            compare("abcabcd", "abcd"),
            Comparison::Equivalent { repeated: 3 }
        );
        assert_eq!(
            compare("aab", "aab"),
            Comparison::Equivalent { repeated: 0 }
        );
        assert_eq!(
            compare("ab", "abc"),
            Comparison::Begins {
                repeated: 0,
                missing: 1
            }
        );
        let skips = Comparison::Differs {
            at: 1,
            shown: 'c',
            expected: Some('b'),
        };
        assert_eq!(compare("acb", "abc"), skips);
        let goes_on = Comparison::Differs {
            at: 2,
            shown: 'x',
            expected: None,
        };
        assert_eq!(compare("abx", "ab"), goes_on);
    }
}
