//! redb: in memory without durability (and one durable commit in a thousand, so that it can reuse
//! its pages), on disk with it.

use redb::{
    Database, Durability, ReadableTable, Table as RedbTable, TableDefinition, WriteTransaction,
};

use crate::engine::{Engine, Setup, Table, key};

const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("bench");

pub struct Redb {
    /// Dropped before what they borrow.
    table: Option<RedbTable<'static, u64, &'static [u8]>>,
    transaction: Option<Box<WriteTransaction>>,
    database: Database,
    record: Vec<u8>,
    durable: bool,
    commits: u64,
}

impl Redb {
    pub fn new(setup: &Setup) -> Result<Redb, String> {
        let database = Database::builder()
            .set_cache_size(512 << 20)
            .create(setup.dir.join("redb"));
        let database = database.map_err(|error| format!("redb: {error}"))?;
        let record = Vec::new();
        let (table, transaction, commits) = (None, None, 0);
        let mut redb = Redb {
            table,
            transaction,
            database,
            record,
            durable: setup.durable,
            commits,
        };
        redb.begin();
        for (number, &Table { record_len, count }) in setup.tables.iter().enumerate() {
            let record = vec![0; record_len];
            let table = redb.table.as_mut().expect("open");
            for index in 0..count {
                table
                    .insert(key(number, index), &record[..])
                    .map_err(|error| error.to_string())?;
            }
        }
        redb.commit();
        Ok(redb)
    }
}

impl Engine for Redb {
    fn begin(&mut self) {
        let mut transaction = Box::new(self.database.begin_write().expect("begin_write"));
        let durable = self.durable || self.commits.is_multiple_of(1000);
        let durability = if durable {
            Durability::Immediate
        } else {
            Durability::None
        };
        transaction.set_durability(durability).expect("durability");
        // SAFETY: the box does not move, and `commit` drops the table first.
        let held: &'static WriteTransaction = unsafe { &*std::ptr::from_ref(&*transaction) };
        self.table = Some(held.open_table(TABLE).expect("open_table"));
        self.transaction = Some(transaction);
    }

    fn read(&mut self, table: usize, index: usize) -> &[u8] {
        let open = self.table.as_ref().expect("open");
        let value = open.get(key(table, index)).expect("get").expect("a record");
        self.record.clear();
        self.record.extend_from_slice(value.value());
        &self.record
    }

    fn update(&mut self, table: usize, index: usize, offset: usize, bytes: &[u8]) {
        self.read(table, index);
        self.record[offset..offset + bytes.len()].copy_from_slice(bytes);
        let open = self.table.as_mut().expect("open");
        open.insert(key(table, index), &self.record[..])
            .expect("insert");
    }

    fn commit(&mut self) {
        self.table = None;
        self.commits += 1;
        self.transaction
            .take()
            .expect("open")
            .commit()
            .expect("commit");
    }
}
