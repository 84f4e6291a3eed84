//! Who is logged in.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use undo::{Context, Error, Result};

/// A login ends after this time without a click.
const LASTS: Duration = Duration::from_secs(3600);

pub struct Logins {
    password: String,
    /// By cookie: the token of its forms, and when it was last used.
    open: HashMap<String, (String, Instant)>,
}

impl Logins {
    pub fn new(password_file: &Path) -> Result<Logins> {
        let shown = password_file.display();
        let mode = std::fs::metadata(password_file)
            .context(&shown, "read the password")?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(
                Error::new(shown, "read the password", "others may read this file")
                    .advise(format!("chmod 600 {}", password_file.display())),
            );
        }
        let text = std::fs::read_to_string(password_file).context(&shown, "read the password")?;
        let password = text.lines().next().unwrap_or_default().to_owned();
        if password.len() < 8 {
            return Err(Error::new(
                shown,
                "read the password",
                "it is shorter than 8 characters",
            ));
        }
        Ok(Logins {
            password,
            open: HashMap::new(),
        })
    }

    /// A new cookie, if the password is right.
    pub fn enter(&mut self, password: &str) -> Result<Option<String>> {
        if !same(password.as_bytes(), self.password.as_bytes()) {
            return Ok(None);
        }
        let cookie = random()?;
        self.open
            .insert(cookie.clone(), (random()?, Instant::now()));
        Ok(Some(cookie))
    }

    pub fn leave(&mut self, cookie: &str) {
        self.open.remove(cookie);
    }

    pub fn token(&mut self, cookie: &str) -> Option<String> {
        self.open.retain(|_, (_, used)| used.elapsed() < LASTS);
        let (token, used) = self.open.get_mut(cookie)?;
        *used = Instant::now();
        Some(token.clone())
    }
}

/// Compares in a time that does not tell where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (x, y)| all | (x ^ y)) == 0
}

fn random() -> Result<String> {
    let mut bytes = [0u8; 24];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("/dev/urandom", "read")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
