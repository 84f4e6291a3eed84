//! Counts, one number a second, and does not begin again when it is killed.
//!
//! ```text
//! cargo build -p dcrun && DCRUN=target/debug/dcrun cargo run -p libdc --example counter
//! # in another terminal: pkill -9 -x counter
//! ```

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

static RECOVERIES: AtomicU32 = AtomicU32::new(0);

fn main() -> Result<(), dc::Error> {
    dc::init("counter.state")?;
    dc::at_recovery(|| {
        RECOVERIES.fetch_add(1, Ordering::Relaxed);
    })?;
    for number in 1..=60 {
        println!(
            "{number} (recovered {} times)",
            RECOVERIES.load(Ordering::Relaxed)
        );
        dc::checkpoint()?;
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}
