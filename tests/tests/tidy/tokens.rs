//! The words and signs of a Rust source.

/// Whether a character is of a name, a keyword or a number.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The words and signs of a source, without comments, strings and characters.
pub(crate) fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let passed_over = comment_bytes(rest).or_else(|| literal_bytes(rest));
        let bytes = match passed_over {
            Some(bytes) => bytes,
            None if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            None if rest.starts_with("::") => 2,
            None => first.len_utf8(),
        };
        if passed_over.is_none() && !first.is_whitespace() {
            tokens.push(&rest[..bytes]);
        }
        rest = &rest[bytes..];
    }
    tokens
}

/// The size of the comment that a text begins with.
fn comment_bytes(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    let (mut depth, mut at) = (1, text.strip_prefix("/*").map(|_| 2)?);
    while depth > 0 {
        let Some(next) = text[at..].find(['*', '/']) else { return Some(text.len()) };
        at += next;
        let step = match text[at..].get(..2) {
            Some("/*") => 1,
            Some("*/") => -1,
            _ => 0,
        };
        depth += step;
        at += if step == 0 { 1 } else { 2 };
    }
    Some(at)
}

/// The size of the string or character that a text begins with.
fn literal_bytes(text: &str) -> Option<usize> {
    let raw = ["r", "br", "cr"].iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or_default();
    let opened = raw.trim_start_matches('#');
    if let Some(content) = opened.strip_prefix('"') {
        let end = format!("\"{}", "#".repeat(raw.len() - opened.len()));
        return Some(
            text.len() - content.len() + content.find(&end).map_or(content.len(), |at| at + end.len()),
        );
    }
    let quoted = ["\"", "b\"", "c\""].iter().find_map(|prefix| text.strip_prefix(prefix));
    let (content, end) = match (quoted, text.strip_prefix('\'')) {
        (Some(content), _) => (content, '"'),
        (None, Some(content)) if content.starts_with('\\') || content.chars().nth(1) == Some('\'') => {
            (content, '\'')
        }
        _ => return None,
    };
    let mut escaped = false;
    let is_end = |c: char| {
        let ends = c == end && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    };
    Some(text.len() - content.len() + content.find(is_end).map_or(content.len(), |at| at + 1))
}
