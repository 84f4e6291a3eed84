//! The bank: transfers in persistent memory that may be killed at any moment.
//!
//!     bank IMAGE [RIO] [ACKNOWLEDGED] [TRANSACTIONS]
//!
//! Opens or creates the image, checks that no money was made or lost and that every acknowledged
//! transaction is there, then goes on. The number of commits goes to stdout as 8 bytes, at first
//! and after each.
#![deny(unsafe_code)]

use std::io::{Write, stdout};
use std::path::Path;
use std::process::ExitCode;

use vista::{
    AnyRio, Error, Kind, Options, Ptr, Segment, SegmentOptions, Store, Transaction, persistent,
};

const ACCOUNTS: usize = 10_000;
const TELLERS: usize = 100;
const BRANCHES: usize = 10;
const HISTORY: usize = 4096;

persistent! {
    struct Bank {
        transactions: u64,
        history: Ptr<Entry>,
        branches: [i64; BRANCHES],
        tellers: [i64; TELLERS],
        accounts: [i64; ACCOUNTS],
    }

    /// The audit trail is a ring, as in the thesis.
    struct Entry {
        account: u32,
        teller: u32,
        amount: i64,
    }
}

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bank: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Error> {
    let word = |index| arguments.get(index).map(String::as_str);
    let Some(path) = word(0) else {
        return Err(Error::Aborted(
            "usage: bank IMAGE [RIO] [ACKNOWLEDGED] [TRANSACTIONS]".into(),
        ));
    };
    let kind: Kind = word(1).unwrap_or("tmpfs").parse().map_err(Error::Aborted)?;
    let number = |index| word(index).and_then(|word| word.parse().ok());
    let acknowledged: u64 = number(2).unwrap_or(0);
    let count: u64 = number(3).unwrap_or(u64::MAX);

    let (mut store, segment) = open(Path::new(path), kind)?;
    let bank = store.transaction(|tx| open_bank(tx, segment))?;
    let mut done = check(&mut store, bank, acknowledged)?;
    let mut random = done;
    announce(done);
    for _ in 0..count {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        store.transaction(|tx| transfer(tx, bank, random))?;
        done += 1;
        announce(done);
    }
    check(&mut store, bank, done).map(|_| ())
}

/// Whoever watches may be gone; that is no reason to stop.
fn announce(done: u64) {
    let mut out = stdout().lock();
    let _ = out
        .write_all(&done.to_le_bytes())
        .and_then(|()| out.flush());
}

fn open(path: &Path, kind: Kind) -> Result<(Store<AnyRio>, Segment), Error> {
    let options = Options {
        log_len: 4 << 20,
        ..Options::default()
    };
    let mut store = match path.exists() {
        true => Store::open_on(path, options, |image| AnyRio::open_as(kind, image))?,
        false => Store::create_on(path, options, |image| AnyRio::create_as(kind, image))?,
    };
    let segment = store.segment_or_create("bank", SegmentOptions::heap(1 << 20))?;
    Ok((store, segment))
}

fn open_bank(tx: &mut Transaction<'_, AnyRio>, segment: Segment) -> Result<Ptr<Bank>, Error> {
    if let Some(bank) = tx.root(segment)? {
        return Ok(bank);
    }
    let history = tx.alloc_slice(
        segment,
        &[Entry {
            account: 0,
            teller: 0,
            amount: 0,
        }; HISTORY],
    )?;
    let bank = tx.alloc(
        segment,
        Bank {
            transactions: 0,
            history,
            branches: [0; BRANCHES],
            tellers: [0; TELLERS],
            accounts: [0; ACCOUNTS],
        },
    )?;
    tx.set_root(segment, bank)?;
    Ok(bank)
}

/// Debit-credit: an account, its teller, its branch, and a line in the history.
fn transfer(tx: &mut Transaction<'_, AnyRio>, bank: Ptr<Bank>, random: u64) -> Result<(), Error> {
    let account = (random >> 33) as usize % ACCOUNTS;
    let (teller, amount) = (account % TELLERS, (random >> 20) as i64 % 1000 - 500);
    let field =
        |offset: usize, index: usize| Ptr::<i64>::from_at(bank.at().plus(offset)).element(index);
    *tx.get_mut(field(std::mem::offset_of!(Bank, accounts), account))? += amount;
    *tx.get_mut(field(std::mem::offset_of!(Bank, tellers), teller))? += amount;
    *tx.get_mut(field(
        std::mem::offset_of!(Bank, branches),
        teller % BRANCHES,
    ))? += amount;
    let Bank {
        transactions,
        history,
        ..
    } = *tx.get(bank)?;
    let entry = Entry {
        account: account as u32,
        teller: teller as u32,
        amount,
    };
    tx.set(history.element(transactions as usize % HISTORY), entry)?;
    tx.set(field(0, 0), transactions as i64 + 1)
}

/// No money appears or vanishes; what was acknowledged is there, and at most one transaction more.
fn check(store: &mut Store<AnyRio>, bank: Ptr<Bank>, acknowledged: u64) -> Result<u64, Error> {
    store.transaction(|tx| {
        let now = tx.get(bank)?;
        let sums = [
            now.accounts.iter().sum::<i64>(),
            now.tellers.iter().sum::<i64>(),
            now.branches.iter().sum::<i64>(),
        ];
        let inconsistent = |what: String| Err(Error::Aborted(format!("inconsistent: {what}")));
        if sums[0] != sums[1] || sums[1] != sums[2] {
            return inconsistent(format!("accounts, tellers, branches sum up to {sums:?}"));
        }
        if !(acknowledged..=acknowledged + 1).contains(&now.transactions) {
            let found = now.transactions;
            return inconsistent(format!("{found} transactions, {acknowledged} acknowledged"));
        }
        let (count, history) = (now.transactions, now.history);
        if count as usize <= HISTORY {
            let amounts = tx.slice(history, HISTORY)?.iter().map(|entry| entry.amount);
            if amounts.sum::<i64>() != sums[0] {
                return inconsistent("the history sums up to something else".into());
            }
        }
        Ok(count)
    })
}
