//! The thesis' three workloads, over tables of records.
//!
//! - synthetic: so many bytes at a random place of a 50 MB database;
//! - debit-credit (after TPC-B): account, teller, branch, and a line in a circular history of 2 MB;
//! - order-entry (after TPC-C): new-order, payment and delivery, one after the other, no terminals.

use crate::engine::{Engine, Table};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    Synthetic { len: usize },
    DebitCredit,
    OrderEntry,
}

pub const SIZES: [usize; 7] = [8, 64, 512, 4096, 32 << 10, 256 << 10, 1 << 20];
const DATABASE: usize = 50 << 20;

const BRANCHES: usize = 4;
const TELLERS: usize = 10 * BRANCHES;
const ACCOUNTS: usize = 100_000 * BRANCHES;
const HISTORY: usize = (2 << 20) / 64;

const WAREHOUSES: usize = 4;
const DISTRICTS: usize = 10 * WAREHOUSES;
const CUSTOMERS: usize = 300 * DISTRICTS;
const ITEMS: usize = 20_000;
/// Orders a district remembers, and lines an order can have.
const ORDERS: usize = 1024;
const LINES: usize = 15;

impl Workload {
    pub fn parse(word: &str) -> Option<Workload> {
        match word {
            "debit-credit" => Some(Workload::DebitCredit),
            "order-entry" => Some(Workload::OrderEntry),
            _ => word.parse().ok().map(|len| Workload::Synthetic { len }),
        }
    }

    pub fn tables(self) -> Vec<Table> {
        let table = |record_len, count| Table { record_len, count };
        match self {
            Workload::Synthetic { len } => {
                let record_len = len.max(64);
                vec![table(record_len, DATABASE / record_len)]
            }
            Workload::DebitCredit => vec![
                table(128, BRANCHES),
                table(128, TELLERS),
                table(128, ACCOUNTS),
                table(64, HISTORY),
            ],
            Workload::OrderEntry => vec![
                table(128, WAREHOUSES),
                table(128, DISTRICTS),
                table(512, CUSTOMERS),
                table(256, WAREHOUSES * ITEMS),
                table(64, DISTRICTS * ORDERS),
                table(64, DISTRICTS * ORDERS * LINES),
                table(64, HISTORY),
            ],
        }
    }

    /// Runs so many transactions.
    pub fn run<E: Engine>(self, engine: &mut E, count: u64, random: &mut Random) {
        match self {
            Workload::Synthetic { len } => synthetic(engine, len, count, random),
            Workload::DebitCredit => (0..count).for_each(|_| debit_credit(engine, random)),
            Workload::OrderEntry => (0..count).for_each(|_| order_entry(engine, random)),
        }
    }
}

fn synthetic<E: Engine>(engine: &mut E, len: usize, count: u64, random: &mut Random) {
    let records = DATABASE / len.max(64);
    let bytes = vec![random.next() as u8; len];
    for _ in 0..count {
        engine.begin();
        engine.update(0, random.below(records), 0, &bytes);
        engine.commit();
    }
}

fn debit_credit<E: Engine>(engine: &mut E, random: &mut Random) {
    let account = random.below(ACCOUNTS);
    let teller = random.below(TELLERS);
    let amount = random.below(1000) as i64 - 500;
    engine.begin();
    add(engine, 2, account, 0, amount);
    add(engine, 1, teller, 0, amount);
    let branch = teller % BRANCHES;
    // The branch also counts its lines of history, which thereby needs no record of its own.
    let record = engine.read(0, branch);
    let (balance, lines) = (field(record, 0) + amount, field(record, 8));
    let mut both = [0; 16];
    both[..8].copy_from_slice(&balance.to_le_bytes());
    both[8..].copy_from_slice(&(lines + 1).to_le_bytes());
    engine.update(0, branch, 0, &both);
    let mut entry = [0; 64];
    for (slot, value) in entry
        .chunks_exact_mut(8)
        .zip([account as i64, teller as i64, amount])
    {
        slot.copy_from_slice(&value.to_le_bytes());
    }
    let line = (lines as usize * BRANCHES + branch) % HISTORY;
    engine.update(3, line, 0, &entry);
    engine.commit();
}

fn order_entry<E: Engine>(engine: &mut E, random: &mut Random) {
    // The shares of the three in TPC-C, without the two that only read.
    match random.below(92) {
        0..45 => new_order(engine, random),
        45..88 => payment(engine, random),
        _ => delivery(engine, random),
    }
}

/// District: 0 sales, 8 next order, 16 oldest undelivered. Order: 0 customer, 8 lines, 16
/// delivered.
fn new_order<E: Engine>(engine: &mut E, random: &mut Random) {
    let district = random.below(DISTRICTS);
    let warehouse = district / 10;
    let customer = district * 300 + random.below(300);
    let lines = 5 + random.below(11);
    engine.begin();
    let record = engine.read(1, district);
    let (next, oldest) = (field(record, 8), field(record, 16));
    // A full ring forgets its oldest order.
    let oldest = oldest.max(next + 1 - ORDERS as i64);
    engine.update(1, district, 8, &pair(next + 1, oldest));
    let order = district * ORDERS + next as usize % ORDERS;
    let mut header = [0; 24];
    header[..16].copy_from_slice(&pair(customer as i64, lines as i64));
    engine.update(4, order, 0, &header);
    for line in 0..lines {
        let item = random.below(ITEMS);
        let stock = warehouse * ITEMS + item;
        let quantity = 1 + random.below(10) as i64;
        let record = engine.read(3, stock);
        let left = field(record, 0) - quantity;
        let changed = pair(
            if left < 10 { left + 91 } else { left },
            field(record, 8) + quantity,
        );
        engine.update(3, stock, 0, &changed);
        let mut entry = [0; 32];
        entry[..16].copy_from_slice(&pair(item as i64, quantity));
        entry[16..].copy_from_slice(&pair(quantity * 17, 0));
        engine.update(5, order * LINES + line, 0, &entry);
    }
    engine.commit();
}

fn payment<E: Engine>(engine: &mut E, random: &mut Random) {
    let district = random.below(DISTRICTS);
    let customer = district * 300 + random.below(300);
    let amount = 1 + random.below(5000) as i64;
    engine.begin();
    let record = engine.read(0, district / 10);
    let (total, lines) = (field(record, 0) + amount, field(record, 8));
    engine.update(0, district / 10, 0, &pair(total, lines + 1));
    add(engine, 1, district, 0, amount);
    let record = engine.read(2, customer);
    let changed = pair(field(record, 0) - amount, field(record, 8) + amount);
    engine.update(2, customer, 0, &changed);
    let mut entry = [0; 64];
    entry[..16].copy_from_slice(&pair(customer as i64, amount));
    engine.update(
        6,
        (lines as usize * WAREHOUSES + district / 10) % HISTORY,
        0,
        &entry,
    );
    engine.commit();
}

/// Delivers the oldest order of each of a warehouse's ten districts.
fn delivery<E: Engine>(engine: &mut E, random: &mut Random) {
    let warehouse = random.below(WAREHOUSES);
    engine.begin();
    for district in warehouse * 10..warehouse * 10 + 10 {
        let record = engine.read(1, district);
        let (next, oldest) = (field(record, 8), field(record, 16));
        if oldest >= next {
            continue;
        }
        engine.update(1, district, 16, &(oldest + 1).to_le_bytes());
        let order = district * ORDERS + oldest as usize % ORDERS;
        let record = engine.read(4, order);
        let (customer, lines) = (field(record, 0) as usize, field(record, 8) as usize);
        engine.update(4, order, 16, &1_i64.to_le_bytes());
        let mut sum = 0;
        for line in order * LINES..order * LINES + lines {
            sum += field(engine.read(5, line), 16);
            engine.update(5, line, 24, &1_i64.to_le_bytes());
        }
        add(engine, 2, customer, 0, sum);
    }
    engine.commit();
}

#[inline(always)]
fn add<E: Engine>(engine: &mut E, table: usize, index: usize, offset: usize, amount: i64) {
    let sum = field(engine.read(table, index), offset) + amount;
    engine.update(table, index, offset, &sum.to_le_bytes());
}

#[inline(always)]
fn field(record: &[u8], offset: usize) -> i64 {
    i64::from_le_bytes(record[offset..offset + 8].try_into().expect("8 bytes"))
}

#[inline(always)]
fn pair(one: i64, other: i64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&one.to_le_bytes());
    bytes[8..].copy_from_slice(&other.to_le_bytes());
    bytes
}

pub struct Random(pub u64);

impl Random {
    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    #[inline]
    pub fn below(&mut self, limit: usize) -> usize {
        (((self.next() >> 32) * limit as u64) >> 32) as usize
    }
}
