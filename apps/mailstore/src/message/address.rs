//! Addresses in header fields (RFC 5322, section 3.4), undecoded, for ENVELOPE.

/// What IMAP's ENVELOPE has of an address. A group begins with one that has a
/// mailbox and no host, and ends with one that has nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    pub name: Option<Vec<u8>>,
    pub route: Option<Vec<u8>>,
    pub mailbox: Option<Vec<u8>>,
    pub host: Option<Vec<u8>>,
}

/// More addresses than this in one field are cut off.
const MAX_ADDRESSES: usize = 4096;

#[derive(Debug, PartialEq)]
enum Token {
    /// An atom or a quoted string: text, and whether it was quoted.
    Word(Vec<u8>, bool),
    Comment(Vec<u8>),
    Special(u8),
}

pub fn parse_list(value: &[u8]) -> Vec<Address> {
    let mut list = Vec::new();
    let mut phrase: Vec<Token> = Vec::new();
    let mut in_group = false;
    let mut tokens = Tokens { text: value, at: 0 };
    let mut angle: Option<Address> = None;
    while list.len() < MAX_ADDRESSES {
        let token = tokens.next();
        match token {
            Some(Token::Special(b'<')) => {
                let mut address = tokens.angle();
                address.name = name_of(&phrase);
                phrase.clear();
                angle = Some(address);
            }
            Some(Token::Special(b':')) if !in_group && angle.is_none() => {
                let name = name_of(&phrase).unwrap_or_default();
                list.push(Address {
                    mailbox: Some(name),
                    ..Address::default()
                });
                phrase.clear();
                in_group = true;
            }
            Some(Token::Special(b',')) | Some(Token::Special(b';')) | None => {
                let address = angle.take().or_else(|| bare(&phrase));
                list.extend(address);
                phrase.clear();
                if in_group && token != Some(Token::Special(b',')) {
                    list.push(Address::default());
                    in_group = false;
                }
                if token.is_none() {
                    break;
                }
            }
            Some(token) => phrase.push(token),
        }
    }
    list
}

/// The words of a phrase with one space between; a comment if there are none.
fn name_of(phrase: &[Token]) -> Option<Vec<u8>> {
    let mut name: Vec<u8> = Vec::new();
    let mut after_dot = true;
    for token in phrase {
        match token {
            Token::Word(word, _) => {
                if !after_dot {
                    name.push(b' ');
                }
                name.extend_from_slice(word);
                after_dot = false;
            }
            Token::Special(byte) => {
                name.push(*byte);
                after_dot = *byte == b'@';
            }
            Token::Comment(_) => {}
        }
    }
    if name.is_empty() {
        return phrase.iter().find_map(|token| match token {
            Token::Comment(text) if !text.is_empty() => Some(text.clone()),
            _ => None,
        });
    }
    Some(name)
}

/// `anna@example.org (Anna)`: an address without angle brackets.
fn bare(phrase: &[Token]) -> Option<Address> {
    let mut local = Vec::new();
    let mut host: Option<Vec<u8>> = None;
    let mut name = None;
    for token in phrase {
        match token {
            Token::Comment(text) => name = Some(text.clone()),
            Token::Special(b'@') if host.is_none() => host = Some(Vec::new()),
            Token::Special(byte) => host.as_mut().unwrap_or(&mut local).push(*byte),
            Token::Word(word, _) => host.as_mut().unwrap_or(&mut local).extend_from_slice(word),
        }
    }
    if local.is_empty() && host.is_none() {
        return None;
    }
    Some(Address {
        name,
        route: None,
        mailbox: Some(local),
        host: host.or(Some(Vec::new())),
    })
}

struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
}

impl Tokens<'_> {
    fn next(&mut self) -> Option<Token> {
        while self
            .text
            .get(self.at)
            .is_some_and(|b| b.is_ascii_whitespace() || *b == 0)
        {
            self.at += 1;
        }
        match *self.text.get(self.at)? {
            b'"' => Some(Token::Word(self.quoted(), true)),
            b'(' => Some(Token::Comment(self.comment())),
            byte @ (b'<' | b'>' | b'@' | b',' | b';' | b':' | b')' | b'[' | b']')
                if byte != b'[' =>
            {
                self.at += 1;
                Some(Token::Special(byte))
            }
            b'[' => {
                let start = self.at;
                let len = memchr::memchr(b']', &self.text[start..])
                    .map_or(self.text.len() - start, |at| at + 1);
                self.at += len;
                Some(Token::Word(
                    super::header::unfold(&self.text[start..start + len]),
                    false,
                ))
            }
            _ => {
                let start = self.at;
                while self.text.get(self.at).is_some_and(|byte| {
                    !byte.is_ascii_whitespace() && !b"\"()<>@,;:[]\0".contains(byte)
                }) {
                    self.at += 1;
                }
                Some(Token::Word(self.text[start..self.at].to_vec(), false))
            }
        }
    }

    fn quoted(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.at += 1;
        while let Some(byte) = self.text.get(self.at).copied() {
            self.at += 1;
            match byte {
                b'"' => break,
                b'\\' => {
                    out.extend(self.text.get(self.at));
                    self.at += 1;
                }
                _ => out.push(byte),
            }
        }
        super::header::unfold(&out)
    }

    fn comment(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut depth = 0u32;
        while let Some(byte) = self.text.get(self.at).copied() {
            self.at += 1;
            match byte {
                b'(' => {
                    depth += 1;
                    if depth > 1 {
                        out.push(byte);
                    }
                }
                b')' => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                    out.push(byte);
                }
                b'\\' => {
                    out.extend(self.text.get(self.at));
                    self.at += 1;
                }
                _ => out.push(byte),
            }
        }
        super::header::unfold(&out)
    }

    /// What stands between `<` and `>`.
    fn angle(&mut self) -> Address {
        let mut phrase = Vec::new();
        let mut route = None;
        loop {
            match self.next() {
                Some(Token::Special(b'>')) | None => break,
                // `<@relay,@other:anna@example.org>`: a route of long ago
                Some(Token::Special(b':')) => {
                    route = name_of(&phrase);
                    phrase.clear();
                }
                Some(Token::Comment(_)) => {}
                Some(token) => phrase.push(token),
            }
        }
        let mut address = bare(&phrase).unwrap_or_default();
        address.mailbox.get_or_insert_default();
        address.host.get_or_insert_default();
        address.route = route;
        address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(value: &str) -> String {
        let text = |part: &Option<Vec<u8>>| match part {
            Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            None => "-".into(),
        };
        let list: Vec<String> = parse_list(value.as_bytes())
            .iter()
            .map(|a| format!("{}|{}|{}", text(&a.name), text(&a.mailbox), text(&a.host)))
            .collect();
        list.join(" ; ")
    }

    #[test]
    fn the_usual_and_the_odd_shapes() {
        assert_eq!(short("anna@x.org"), "-|anna|x.org");
        assert_eq!(
            short("Anna B <anna@x.org>, b@y"),
            "Anna B|anna|x.org ; -|b|y"
        );
        assert_eq!(short("\"B, A\" <\"a b\"@x>"), "B, A|a b|x");
        assert_eq!(short("a@x (The (real) A)"), "The (real) A|a|x");
        assert_eq!(
            short("Team: a@x, b@y;, c@z"),
            "-|Team|- ; -|a|x ; -|b|y ; -|-|- ; -|c|z"
        );
        assert_eq!(
            short("undisclosed-recipients:;"),
            "-|undisclosed-recipients|- ; -|-|-"
        );
        assert_eq!(short("<@r,@s:a@[127.0.0.1]>"), "-|a|[127.0.0.1]");
        assert_eq!(short("<>"), "-||");
        assert_eq!(short("local"), "-|local|");
        assert_eq!(short(""), "");
        assert_eq!(short(",,;"), "");
        for hostile in [
            "\"", "(", "<", "\\", "a <b", "[", "::::", ")))", "<<<>>>", "\"\\",
        ] {
            short(hostile);
        }
    }
}
