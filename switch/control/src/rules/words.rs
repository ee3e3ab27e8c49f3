//! The words of a line of `iptables-save`, which quotes as a shell reads it. Pure.

/// The words of a line; `None` if a quote is not closed.
pub(super) fn words(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut quoted = false;
    let mut rest = line.chars();
    while let Some(char) = rest.next() {
        match char {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' => word.get_or_insert_default().push(rest.next()?),
            space if space.is_whitespace() && !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    (!quoted).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell() {
        let read = |line| words(line).unwrap_or_default().join("|");
        assert_eq!(read("-A X  -j DROP "), "-A|X|-j|DROP");
        assert_eq!(read(r#"--comment "two words" -j X"#), "--comment|two words|-j|X");
        assert_eq!(read(r#"--comment "say \"no\" \\" """#), r#"--comment|say "no" \|"#);
        assert_eq!(words(r#"--comment "open"#), None);
    }
}
