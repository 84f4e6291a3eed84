//! The grammar of SMTP commands.

/// What a client can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Ehlo(String),
    Helo(String),
    Lhlo(String),
    Mail(Mail),
    Rcpt(String),
    Data,
    Rset,
    Noop,
    Quit,
    Vrfy,
    Help,
    StartTls,
    Auth {
        mechanism: String,
        initial: Option<String>,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mail {
    /// Empty for the null sender of bounces.
    pub sender: String,
    pub size: Option<u64>,
    pub utf8: bool,
}

/// The reply to a line that is no command.
pub type Bad = &'static str;

const SYNTAX: Bad = "501 5.5.4 The arguments are not understood";

pub fn parse(line: &[u8]) -> Result<Command, Bad> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = std::str::from_utf8(line).map_err(|_| "500 5.5.2 The line is not UTF-8")?;
    if line.contains(|c: char| c.is_control()) {
        return Err("500 5.5.2 The line has control characters in it");
    }
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = rest.trim();
    match verb.to_ascii_uppercase().as_str() {
        "EHLO" => Ok(Command::Ehlo(host(rest)?)),
        "HELO" => Ok(Command::Helo(host(rest)?)),
        "LHLO" => Ok(Command::Lhlo(host(rest)?)),
        "MAIL" => mail(after(rest, "FROM:")?),
        "RCPT" => rcpt(after(rest, "TO:")?),
        "DATA" if rest.is_empty() => Ok(Command::Data),
        "RSET" if rest.is_empty() => Ok(Command::Rset),
        "QUIT" if rest.is_empty() => Ok(Command::Quit),
        "STARTTLS" if rest.is_empty() => Ok(Command::StartTls),
        "DATA" | "RSET" | "QUIT" | "STARTTLS" => Err(SYNTAX),
        "NOOP" => Ok(Command::Noop),
        "VRFY" | "EXPN" => Ok(Command::Vrfy),
        "HELP" => Ok(Command::Help),
        "AUTH" => {
            let (mechanism, initial) = rest
                .split_once(' ')
                .map_or((rest, None), |(m, i)| (m, Some(i)));
            if mechanism.is_empty() {
                return Err(SYNTAX);
            }
            let mechanism = mechanism.to_ascii_uppercase();
            Ok(Command::Auth {
                mechanism,
                initial: initial.map(str::to_string),
            })
        }
        _ => Err("500 5.5.1 There is no such command"),
    }
}

fn host(rest: &str) -> Result<String, Bad> {
    let word = rest.split(' ').next().unwrap_or_default();
    // It goes into the Received field, where it must stay one word.
    let safe = word
        .chars()
        .all(|c| c.is_alphanumeric() || "-._:[]".contains(c));
    if word.is_empty() || word.len() > 255 || !safe {
        return Err("501 5.5.4 Say the name of your host");
    }
    Ok(word.to_string())
}

fn after<'a>(rest: &'a str, word: &str) -> Result<&'a str, Bad> {
    match rest.split_at_checked(word.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(word) => Ok(rest.trim_start()),
        _ => Err(SYNTAX),
    }
}

fn mail(rest: &str) -> Result<Command, Bad> {
    let (sender, parameters) = path(rest)?;
    let mut mail = Mail {
        sender,
        ..Mail::default()
    };
    for parameter in parameters
        .split(' ')
        .filter(|parameter| !parameter.is_empty())
    {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match name.to_ascii_uppercase().as_str() {
            "SIZE" => mail.size = Some(value.parse().map_err(|_| SYNTAX)?),
            "BODY" if ["7BIT", "8BITMIME"].contains(&value.to_ascii_uppercase().as_str()) => {}
            "SMTPUTF8" => mail.utf8 = true,
            "AUTH" => {} // who else vouches for the sender is of no use here
            _ => return Err("555 5.5.4 MAIL has no such parameter here"),
        }
    }
    if !mail.utf8 && !mail.sender.is_ascii() {
        return Err("553 5.6.7 The address needs SMTPUTF8");
    }
    Ok(Command::Mail(mail))
}

fn rcpt(rest: &str) -> Result<Command, Bad> {
    let (recipient, parameters) = path(rest)?;
    if recipient.is_empty() {
        return Err("553 5.1.3 The address is empty");
    }
    if !parameters.is_empty() {
        return Err("555 5.5.4 RCPT has no parameters here");
    }
    Ok(Command::Rcpt(recipient))
}

/// `<anna@example.org>` and what follows. A route before the address is dropped
/// (RFC 5321, appendix C).
fn path(rest: &str) -> Result<(String, &str), Bad> {
    let inside = rest
        .strip_prefix('<')
        .ok_or("501 5.1.7 Write the address in <>")?;
    let mut quoted = false;
    let mut escaped = false;
    let mut end = None;
    for (at, char) in inside.char_indices() {
        match char {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => {
                end = Some(at);
                break;
            }
            _ => {}
        }
    }
    let end = end.ok_or("501 5.1.7 The address has no end")?;
    let (address, rest) = (&inside[..end], &inside[end + 1..]);
    if !rest.is_empty() && !rest.starts_with(' ') {
        return Err(SYNTAX);
    }
    let address = match address.strip_prefix('@') {
        Some(route) => route.split_once(':').ok_or(SYNTAX)?.1,
        None => address,
    };
    if address.is_empty() {
        return Ok((String::new(), rest.trim()));
    }
    Ok((check_address(address)?, rest.trim()))
}

fn check_address(address: &str) -> Result<String, Bad> {
    const WRONG: Bad = "501 5.1.3 The address is not well formed";
    if address.len() > 320 {
        return Err("501 5.1.3 The address is too long");
    }
    let Some((local, domain)) = address.rsplit_once('@') else {
        return if address.eq_ignore_ascii_case("postmaster") {
            Ok(address.to_string())
        } else {
            Err("501 5.1.3 The address has no domain")
        };
    };
    let literal = domain.starts_with('[') && domain.ends_with(']');
    let name = |c: char| c.is_alphanumeric() || c == '-' || c == '.' || c == '_';
    let inside = |c: char| c.is_ascii_alphanumeric() || ".:-".contains(c);
    let domain_fits = match literal {
        true => domain[1..domain.len() - 1].chars().all(inside),
        false => domain.chars().all(name) && domain.split('.').all(|label| !label.is_empty()),
    };
    if !domain_fits || domain.len() > 255 {
        return Err(WRONG);
    }
    let local = match local
        .strip_prefix('"')
        .and_then(|local| local.strip_suffix('"'))
    {
        Some(quoted) => unquote(quoted).ok_or(WRONG)?,
        None => local.to_string(),
    };
    if local.is_empty() || local.len() > 64 {
        return Err(WRONG);
    }
    let atom = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c) || !c.is_ascii();
    if local.chars().all(atom) {
        return Ok(format!("{local}@{domain}"));
    }
    let escaped = local.replace('\\', "\\\\").replace('"', "\\\"");
    if escaped.contains(|c: char| c.is_control()) {
        return Err(WRONG);
    }
    // A name that needs its quotes keeps them.
    if address.starts_with('"') {
        Ok(format!("\"{escaped}\"@{domain}"))
    } else {
        Err(WRONG)
    }
}

fn unquote(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => out.push(chars.next()?),
            '"' => return None,
            _ => out.push(char),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rcpt(text: &str) -> Result<String, Bad> {
        match parse(format!("RCPT TO:{text}\r\n").as_bytes())? {
            Command::Rcpt(address) => Ok(address),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn addresses_of_every_shape() {
        for (text, address) in [
            ("<anna@x.org>", "anna@x.org"),
            (" <anna@x.org> ", "anna@x.org"),
            ("<@a,@b:anna@x.org>", "anna@x.org"),
            ("<\"anna\"@x.org>", "anna@x.org"),
            ("<\"a > b\"@x.org>", "\"a > b\"@x.org"),
            ("<anna@[127.0.0.1]>", "anna@[127.0.0.1]"),
            ("<Postmaster>", "Postmaster"),
            ("<grün@köln.de>", "grün@köln.de"),
        ] {
            assert_eq!(rcpt(text).as_deref(), Ok(address), "{text}");
        }
        for wrong in [
            "anna@x",
            "<anna@x",
            "<anna>",
            "<a b@x>",
            "<@x>",
            "<a@>",
            "<a@x..y>",
            "<\"a@x>",
            "<>",
            "<a@x>y",
            "<a@x> NOTIFY=NEVER",
            "<a@b c>",
            "<a@x/y>",
        ] {
            assert!(rcpt(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn mail_has_parameters() {
        let parsed = parse(b"mail from:<a@x> SIZE=10 BODY=8BITMIME SMTPUTF8\r\n");
        assert_eq!(
            parsed,
            Ok(Command::Mail(Mail {
                sender: "a@x".into(),
                size: Some(10),
                utf8: true
            }))
        );
        assert_eq!(parse(b"MAIL FROM:<>\n"), Ok(Command::Mail(Mail::default())));
        for wrong in [
            "MAIL FROM:<a@x> SIZE=x",
            "MAIL FROM:<a@x> FOO",
            "MAIL TO:<a@x>",
            "MAIL",
            "MAIL FROM:<\u{e4}@x>",
            "EHLO",
            "EHLO a<b",
            "DATA x",
            "FOO",
            "",
            "NOOP \u{7}",
            "AUTH",
        ] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(parse(b"EHLO \xff").is_err());
    }
}
