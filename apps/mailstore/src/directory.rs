//! Who there is: passwords, and where an address leads.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use argon2::password_hash::rand_core::{OsRng, RngCore};
use argon2::password_hash::{Output, PasswordHash, Salt, SaltString};
use argon2::{Argon2, PasswordHasher};
use sha2::{Digest, Sha256};

use crate::maildir::account::Account;
use crate::maildir::disk::Disk;
use crate::settings::Settings;

/// So many argon2 computations at once; each takes 19 MiB and all of a core.
const PASSWORDS_AT_ONCE: usize = 2;
/// What the password of a name that is not known is compared with, so that it takes as long. No
/// password opens anything by it.
const NOBODY: &str = "\
    $argon2id$v=19$m=19456,t=2,p=1$5dApwZy+Pm2vqg4+UhOfOw$\
    CujqFgyNrEuxNHPSPhae4oIbx+wrx62CDrEyAwtswuQ";
/// The memory of a computation is given back when nobody has needed it for so long.
const MEMORY_KEPT: Duration = Duration::from_secs(10);

pub struct Directory {
    settings: Arc<Settings>,
    accounts: BTreeMap<String, Arc<Account>>,
    turns: tokio::sync::Semaphore,
    memories: Arc<Mutex<Memories>>,
    /// Digests of passwords that were right, under a key of this process: a client
    /// that logs in every minute costs one argon2 and not one a minute.
    known: Mutex<HashMap<String, [u8; 32]>>,
    key: [u8; 32],
}

/// Where an address leads.
#[derive(Default)]
pub struct Route {
    pub local: Vec<Arc<Account>>,
    /// Addresses for the relay.
    pub remote: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// The domain is ours, the name is not known.
    NoSuchUser,
    /// The domain is not ours.
    NotOurs,
}

impl Directory {
    pub fn new(settings: Arc<Settings>, disk: &Disk) -> Directory {
        let root = settings.data.join("mail");
        let accounts = settings
            .accounts
            .iter()
            .map(|(address, account)| {
                let account =
                    Account::new(address, root.join(address), account.quota, disk.clone());
                (address.clone(), Arc::new(account))
            })
            .collect();
        let mut key = [0; 32];
        OsRng.fill_bytes(&mut key);
        Directory {
            settings,
            accounts,
            turns: tokio::sync::Semaphore::new(PASSWORDS_AT_ONCE),
            memories: Arc::default(),
            known: Mutex::default(),
            key,
        }
    }

    pub fn account(&self, name: &str) -> Option<&Arc<Account>> {
        self.accounts.get(&name.to_lowercase())
    }

    pub fn accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.accounts.values()
    }

    /// The account that this name and password open. `name` may be `user*master`
    /// with the master's password.
    pub async fn login(&self, name: &str, password: &str) -> Option<Arc<Account>> {
        match name.split_once('*') {
            Some((user, master)) => self.login_as(user, master, password).await,
            None => {
                let account = self.find_login(name);
                let hash = account.and_then(|a| self.settings.accounts.get(&a.name));
                let hash = hash.map_or(NOBODY, |settings| settings.password.as_str());
                let right = self.is_right(name, password, hash).await;
                account.filter(|_| right).cloned()
            }
        }
    }

    /// The account of `user`, opened by the master.
    pub async fn login_as(&self, user: &str, master: &str, password: &str) -> Option<Arc<Account>> {
        let known = self
            .settings
            .master
            .as_ref()
            .filter(|known| known.name == master);
        let hash = known.map_or(NOBODY, |known| known.password.as_str());
        let right = self.is_right(&format!("*{master}"), password, hash).await;
        self.find_login(user)
            .filter(|_| right && known.is_some())
            .cloned()
    }

    /// A login may leave out the domain if there is only one.
    fn find_login(&self, name: &str) -> Option<&Arc<Account>> {
        if name.contains('@') {
            let name = name.to_lowercase();
            let (local, domain) = name.rsplit_once('@')?;
            return self.account(&format!("{local}@{}", self.first_name(domain)));
        }
        let mut domains = self
            .settings
            .domains
            .iter()
            .filter(|(_, domain)| domain.same_as.is_none());
        match (domains.next(), domains.next()) {
            (Some((domain, _)), None) => self.account(&format!("{name}@{domain}")),
            _ => None,
        }
    }

    async fn is_right(&self, name: &str, password: &str, hash: &str) -> bool {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(self.key)
            .chain_update(hash)
            .chain_update([0])
            .chain_update(password)
            .finalize()
            .into();
        if lock(&self.known).get(name) == Some(&digest) {
            return true;
        }
        let Ok(_turn) = self.turns.acquire().await else {
            return false;
        };
        // (Others may have asked the same in the meantime: of many that log in at once, each would
        // else take its own computation.)
        if lock(&self.known).get(name) == Some(&digest) {
            return true;
        }
        let (password, hash) = (password.to_string(), hash.to_string());
        let memories = self.memories.clone();
        let right = tokio::task::spawn_blocking(move || {
            let mut memory = lock(&memories).kept.pop().unwrap_or_default();
            let right = is_password(&password, &hash, &mut memory);
            let mut memories = lock(&memories);
            memories.kept.push(memory);
            memories.used += 1;
            right
        });
        let right = right.await.unwrap_or(false);
        self.give_memory_back();
        if right {
            lock(&self.known).insert(name.to_string(), digest);
        }
        right
    }

    /// Frees the kept memory after a while, if nobody needs it meanwhile.
    fn give_memory_back(&self) {
        let used = lock(&self.memories).used;
        let memories = Arc::downgrade(&self.memories);
        tokio::spawn(async move {
            tokio::time::sleep(MEMORY_KEPT).await;
            if let Some(memories) = memories.upgrade() {
                let mut memories = lock(&memories);
                if memories.used == used {
                    memories.kept = Vec::new();
                }
            }
        });
    }

    pub fn is_ours(&self, domain: &str) -> bool {
        self.settings.domains.contains_key(&domain.to_lowercase())
    }

    /// Follows aliases to accounts and to addresses elsewhere. An address without
    /// a domain can only be `postmaster` (RFC 5321, section 4.1.1.3).
    pub fn route(&self, address: &str) -> Result<Route, NoRoute> {
        let mut route = Route::default();
        let mut seen = BTreeSet::new();
        let mut next = vec![address.to_string()];
        while let Some(address) = next.pop() {
            if !seen.insert(address.to_lowercase()) {
                continue;
            }
            match self.step(&address) {
                Step::Account(account) => {
                    if !route.local.iter().any(|known| known.name == account.name) {
                        route.local.push(account.clone());
                    }
                }
                Step::Alias(targets) => next.extend(targets.iter().cloned()),
                Step::Elsewhere => route.remote.push(address),
                // One wrong target of an alias must not stop the others; the
                // settings' check has told of it.
                Step::Unknown if seen.len() > 1 => {}
                Step::Unknown => return Err(NoRoute::NoSuchUser),
            }
        }
        if route.local.is_empty() && route.remote.is_empty() {
            return Err(NoRoute::NoSuchUser);
        }
        if seen.len() == 1 && route.local.is_empty() {
            return Err(NoRoute::NotOurs);
        }
        Ok(route)
    }

    fn step(&self, address: &str) -> Step<'_> {
        let lower = address.to_lowercase();
        let (local, domain) = match lower.rsplit_once('@') {
            Some((local, domain)) => (local, domain),
            None if lower == "postmaster" => return self.postmaster(),
            None => return Step::Unknown,
        };
        if !self.settings.domains.contains_key(domain) {
            return Step::Elsewhere;
        }
        let domain = self.first_name(domain);
        let plain = local.split('+').next().unwrap_or_default();
        for local in [local, plain] {
            let address = format!("{local}@{domain}");
            if let Some(account) = self.accounts.get(&address) {
                return Step::Account(account);
            }
            if let Some(targets) = self.settings.aliases.get(&address) {
                return Step::Alias(targets);
            }
        }
        if local == "postmaster" {
            return self.postmaster();
        }
        match self
            .settings
            .domains
            .get(domain)
            .and_then(|domain| domain.catch_all.as_ref())
        {
            Some(target) => Step::Alias(std::slice::from_ref(target)),
            None => Step::Unknown,
        }
    }

    /// Somebody always reads what is sent to postmaster.
    fn postmaster(&self) -> Step<'_> {
        let named = self
            .settings
            .postmaster
            .as_ref()
            .and_then(|name| self.accounts.get(name));
        named
            .or_else(|| self.accounts.values().next())
            .map_or(Step::Unknown, Step::Account)
    }

    fn first_name<'a>(&'a self, domain: &'a str) -> &'a str {
        let known = self.settings.domains.get(domain);
        known
            .and_then(|known| known.same_as.as_deref())
            .unwrap_or(domain)
    }
}

enum Step<'a> {
    Account(&'a Arc<Account>),
    Alias(&'a [String]),
    Elsewhere,
    Unknown,
}

/// Memory of argon2, between two computations. It is not left to the allocator, which would get and
/// free it in another thread each time, and keep it for each of them: 700 MB after a thousand logins.
#[derive(Default)]
struct Memories {
    kept: Vec<Vec<argon2::Block>>,
    /// How often any was used.
    used: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this is the password of the hash, which has its kind, version, parameters and salt in it.
fn is_password(password: &str, hash: &str, memory: &mut Vec<argon2::Block>) -> bool {
    let mut right = || -> Option<bool> {
        let hash = PasswordHash::new(hash).ok()?;
        let kind = argon2::Algorithm::try_from(hash.algorithm).ok()?;
        let version = match hash.version {
            Some(number) => argon2::Version::try_from(number).ok()?,
            None => argon2::Version::default(),
        };
        let argon2 = Argon2::new(kind, version, argon2::Params::try_from(&hash).ok()?);
        let mut salt = [0; Salt::MAX_LENGTH];
        let salt = hash.salt?.decode_b64(&mut salt).ok()?;
        let known = hash.hash?;
        let blocks = argon2.params().block_count();
        memory.resize(blocks, argon2::Block::default());
        let found = Output::init_with(known.len(), |out| {
            let done = argon2.hash_password_into_with_memory(
                password.as_bytes(),
                salt,
                out,
                &mut memory[..blocks],
            );
            done.map_err(Into::into)
        });
        // (Outputs are compared in constant time.)
        Some(found.ok()? == known)
    };
    right().unwrap_or(false)
}

/// An argon2id hash with a salt of its own, for the settings.
pub fn hash_password(password: &str) -> Result<String, String> {
    let salt = SaltString::generate(&mut OsRng);
    Argon2::default()
        .hash_password(password.as_bytes(), &salt)
        .map(|hash| hash.to_string())
        .map_err(|cause| format!("cannot hash the password: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Arc<Directory> {
        let hash = hash_password("right").unwrap();
        let text = format!(
            "hostname = \"here.test\"\ndata = \"data\"\n[listen]\nimap = [\"127.0.0.1:1143\"]\n\
             [[domain]]\nname = \"here.test\"\n\
             [[account]]\naddress = \"ann@here.test\"\npassword = \"{hash}\"\n\
             [master]\nname = \"proxy\"\npassword = \"{hash}\"\n"
        );
        let settings = Settings::parse(&text, std::path::Path::new("/nowhere")).unwrap();
        Arc::new(Directory::new(Arc::new(settings), &Disk::default()))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_that_log_in_at_once_share_a_computation() {
        let directory = directory();
        let logins: Vec<_> = (0..16)
            .map(|_| {
                let directory = directory.clone();
                tokio::spawn(async move { directory.login("ann*proxy", "right").await.is_some() })
            })
            .collect();
        for login in logins {
            assert!(login.await.unwrap());
        }
        let used = lock(&directory.memories).used;
        assert!(used <= PASSWORDS_AT_ONCE as u64, "{used} computations");
        assert!(directory.login("ann*proxy", "wrong").await.is_none());
        assert!(directory.login("ann@here.test", "right").await.is_some());
    }

    #[tokio::test]
    async fn a_name_that_is_not_known_takes_as_long_and_opens_nothing() {
        let directory = directory();
        let parameters = |hash: &str| {
            let hash = PasswordHash::new(hash).unwrap();
            let length = hash.hash.map(|h| h.len());
            (
                hash.algorithm.to_string(),
                hash.version,
                hash.params.to_string(),
                length,
            )
        };
        assert_eq!(parameters(NOBODY), parameters(&hash_password("x").unwrap()));
        for name in ["dan@here.test", "ann*nobody", "dan*proxy"] {
            let before = lock(&directory.memories).used;
            assert!(directory.login(name, "nobody").await.is_none(), "{name}");
            assert_eq!(lock(&directory.memories).used, before + 1, "{name}");
        }
    }
}
