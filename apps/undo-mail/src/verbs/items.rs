//! The items of a FETCH, as the client lists them.

/// Whether fetching these items sets `\Seen` (RFC 3501, 6.4.5).
pub(super) fn marks_seen(items: &str) -> bool {
    split_items(items).iter().any(|item| {
        let item = item.to_uppercase();
        item.starts_with("BODY[") || item == "RFC822" || item == "RFC822.TEXT"
    })
}

/// The same items in the forms that change nothing.
pub(super) fn peeking(items: &str) -> String {
    let peek = |item: String| match item.to_uppercase().as_str() {
        "RFC822" => "BODY.PEEK[]".into(),
        "RFC822.TEXT" => "BODY.PEEK[TEXT]".into(),
        upper if upper.starts_with("BODY[") => format!("BODY.PEEK{}", &item[4..]),
        _ => item,
    };
    split_items(items)
        .into_iter()
        .map(peek)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Items are separated by spaces, but not inside of brackets.
pub fn split_items(items: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut depth = 0i32;
    for c in items.chars() {
        depth += match c {
            '[' => 1,
            ']' => -1,
            _ => 0,
        };
        match (c, depth, found.last_mut()) {
            (' ', 0, _) => found.push(String::new()),
            (_, _, Some(last)) => last.push(c),
            _ => {}
        }
    }
    found.retain(|item| !item.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use undo::{Access, Verb as _};

    use crate::names::{Folder, Message};
    use crate::verbs::{Act, Verb};

    #[test]
    fn a_fetch_that_marks_is_read_in_its_peeking_form() {
        let verb = |items: &str| {
            let (id, name) = (7, "x".into());
            Verb::new(
                "ann",
                Act::Fetch {
                    folder: Folder { id, name },
                    messages: vec![Message { id: 1, nth: 1 }],
                    items: items.into(),
                },
            )
        };
        assert!(matches!(
            verb("FLAGS BODY.PEEK[HEADER]").access(),
            Access::Reads
        ));
        let Access::ReadsAs(Verb {
            act: Act::Fetch { items, .. },
            ..
        }) = verb("UID BODY[HEADER.FIELDS (TO CC)]<0.5> RFC822").access()
        else {
            panic!("it marks");
        };
        assert_eq!(
            items,
            "UID BODY.PEEK[HEADER.FIELDS (TO CC)]<0.5> BODY.PEEK[]"
        );
    }
}
