//! `KEY=VALUE`, the form of labels, options and filters.

/// Reads `KEY=VALUE`; a `KEY` alone has an empty value, as Docker has it.
pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err("write KEY=VALUE".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_be_alone_and_a_value_may_not() {
        assert_eq!(key_value("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(key_value("a"), Ok(("a".to_owned(), String::new())));
        assert!(key_value("=b").is_err());
    }
}
