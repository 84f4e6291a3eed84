//! Who does what, and when: the profile of SPECmail2001, with all mail for the store and IMAP in
//! the place of POP (Brown and Patterson, section 5.1).

/// KB of a mail, and how many of 10,000 mails have that size.
const SIZES_KB: [(usize, u32); 10] = [
    (1, 1020),
    (2, 3071),
    (3, 2059),
    (4, 1078),
    (5, 588),
    (6, 374),
    (10, 744),
    (100, 979),
    (1000, 69),
    (2675, 18),
];

/// Of each user and day. Two of the mails are sent by another user, two come from outside.
const MAILS: f64 = 4.0;
const LOOKS: f64 = 4.0;
const SENT_BY_USERS: f64 = 0.5;
const FIND_NOTHING: f64 = 0.75;

#[derive(Clone, Debug)]
pub struct Event {
    /// Seconds since the beginning.
    pub at_s: f64,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    Mail {
        from: Option<u32>,
        to: u32,
        bytes: usize,
    },
    Look {
        user: u32,
        fetches: bool,
    },
}

/// Events in the order of their times.
pub struct Plan {
    pub events: Vec<Event>,
}

impl Plan {
    /// `hour` is the per cent of a day's work that falls into an hour.
    pub fn new(users: u32, minutes: f64, hour: f64, seed: u64) -> Plan {
        let mut draw = Draw(seed);
        let per_second = |each: f64| f64::from(users) * each * hour / 100.0 / 3600.0;
        let mut events = Vec::new();
        for (rate, is_mail) in [(per_second(MAILS), true), (per_second(LOOKS), false)] {
            // Users do not know of each other: the times between events are exponential.
            let mut at_s = 0.0;
            loop {
                at_s -= (1.0 - draw.unit()).ln() / rate;
                if at_s.is_nan() || at_s >= minutes * 60.0 {
                    break;
                }
                let what = match is_mail {
                    true => What::Mail {
                        from: (draw.unit() < SENT_BY_USERS).then(|| draw.below(users)),
                        to: draw.below(users),
                        bytes: draw.size(),
                    },
                    false => What::Look {
                        user: draw.below(users),
                        fetches: draw.unit() >= FIND_NOTHING,
                    },
                };
                events.push(Event { at_s, what });
            }
        }
        events.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        Plan { events }
    }
}

/// Numbers that follow from a seed (SplitMix64).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn below(&mut self, n: u32) -> u32 {
        (self.unit() * f64::from(n)) as u32
    }

    fn size(&mut self) -> usize {
        let mut left = self.below(10_000);
        for (kb, share) in SIZES_KB {
            if left < share {
                return kb * 1024;
            }
            left -= share;
        }
        1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sizes_are_all_of_100_per_cent() {
        assert_eq!(SIZES_KB.iter().map(|(_, share)| share).sum::<u32>(), 10_000);
    }

    #[test]
    fn the_rates_are_those_of_the_paper() {
        // 10,000 users: "an average of 95 SMTP connections and 102 IMAP connections per minute".
        let plan = Plan::new(10_000, 30.0, 15.0, 1);
        let mails: Vec<usize> = plan
            .events
            .iter()
            .filter_map(|e| match e.what {
                What::Mail { bytes, .. } => Some(bytes),
                What::Look { .. } => None,
            })
            .collect();
        let looks = plan.events.len() - mails.len();
        assert!((90.0..110.0).contains(&(mails.len() as f64 / 30.0)));
        assert!((90.0..110.0).contains(&(looks as f64 / 30.0)));
        // The mean of the table: 25.2 KB.
        let mean = mails.iter().sum::<usize>() as f64 / mails.len() as f64 / 1024.0;
        assert!((18.0..33.0).contains(&mean), "{mean}");
        let nothing = plan
            .events
            .iter()
            .filter(|e| matches!(e.what, What::Look { fetches: false, .. }))
            .count();
        assert!((0.72..0.78).contains(&(nothing as f64 / looks as f64)));
    }
}
