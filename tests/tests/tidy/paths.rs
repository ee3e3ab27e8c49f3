//! A reader of Rust that knows modules and paths, and nothing else.

use std::collections::BTreeMap;

use super::tokens::{is_word, tokens};

/// A module or name of a crate, from its root on.
pub(crate) type Path = Vec<String>;

/// Modules and paths of a source.
#[derive(Default)]
pub(crate) struct Source {
    /// Modules it declares whose content is in another file.
    pub(crate) files: Vec<Path>,
    /// Modules it declares, with their content or without.
    declared: Vec<Path>,
    /// Names that `use` gives: the module it stands in, the path, the name.
    uses: Vec<(Path, Path, String)>,
    /// Paths in code: the module they stand in, the path.
    paths: Vec<(Path, Path)>,
}

impl Source {
    /// Reads the source of a module.
    pub(crate) fn read(text: &str, module: &[String]) -> Self {
        let mut reader = Reader { tokens: tokens(text), at: 0, source: Self::default() };
        while reader.at < reader.tokens.len() {
            reader.block(module);
        }
        reader.source
    }

    /// Paths that begin in this crate: as they are written, and from the crate's root on.
    pub(crate) fn imports(&self) -> Vec<(String, Path)> {
        let mut given = BTreeMap::new();
        for (module, path, name) in &self.uses {
            if let Some(target) = self.rooted(module, path) {
                given.insert((module, name), target);
            }
        }
        let through_use = |module: &Path, path: &Path| {
            let given = given.get(&(module, path.first()?))?;
            Some([given.as_slice(), &path[1..]].concat())
        };
        let uses = self.uses.iter().map(|(module, path, _)| (module, path));
        let all = uses.chain(self.paths.iter().map(|(module, path)| (module, path)));
        let target =
            |module: &Path, path: &Path| self.rooted(module, path).or_else(|| through_use(module, path));
        all.filter_map(|(module, path)| Some((path.join("::"), target(module, path)?))).collect()
    }

    /// A path from the crate's root on, if its first word says that it begins in this crate.
    fn rooted(&self, module: &[String], path: &[String]) -> Option<Path> {
        let ups =
            path.iter().skip(usize::from(path[0] == "self")).take_while(|word| *word == "super").count();
        let child = [module, &path[..1]].concat();
        match path[0].as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([&module[..module.len().checked_sub(ups)?], &path[1 + ups..]].concat()),
            "super" => Some([&module[..module.len().checked_sub(ups)?], &path[ups..]].concat()),
            _ if self.declared.contains(&child) => Some([module, path].concat()),
            _ => None,
        }
    }
}

struct Reader<'a> {
    tokens: Vec<&'a str>,
    at: usize,
    source: Source,
}

impl Reader<'_> {
    fn peek(&self) -> &str {
        self.tokens.get(self.at).copied().unwrap_or_default()
    }

    fn takes(&mut self, tokens: &[&str]) -> bool {
        let found = self.tokens[self.at..].starts_with(tokens);
        self.at += if found { tokens.len() } else { 0 };
        found
    }

    /// Reads to the brace that closes the block, or to the end.
    fn block(&mut self, module: &[String]) {
        while self.at < self.tokens.len() && !self.takes(&["}"]) {
            if self.takes(&["{"]) {
                self.block(module);
            } else if self.takes(&["#", "[", "cfg", "(", "test", ")", "]"]) {
                self.pass_item_over();
            } else if self.takes(&["pub", "(", "in"]) {
                self.at += self.tokens[self.at..].iter().take_while(|token| **token != ")").count();
            } else if self.takes(&["mod"]) {
                let inner = [module, &[self.peek().to_owned()]].concat();
                self.at += 1;
                self.source.declared.push(inner.clone());
                if self.takes(&["{"]) {
                    self.block(&inner);
                } else {
                    self.source.files.push(inner);
                }
            } else if self.peek() == "use" && self.tokens.get(self.at + 1) != Some(&"<") {
                self.at += 1;
                self.tree(module, &[]);
            } else {
                self.path(module);
            }
        }
    }

    /// Reads past an item: to its semicolon, or to the brace that closes it.
    fn pass_item_over(&mut self) {
        let mut depth = 0;
        while self.at < self.tokens.len() {
            match self.peek() {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth -= 1,
                _ => {}
            }
            let ends = depth == 0 && matches!(self.peek(), "}" | ";");
            self.at += 1;
            if ends {
                return;
            }
        }
    }

    /// Reads one tree of `use`, below a path.
    fn tree(&mut self, module: &[String], above: &[String]) {
        let mut path = above.to_vec();
        let mut name = None;
        while self.at < self.tokens.len() && !matches!(self.peek(), "," | "}" | ";") {
            if self.takes(&["{"]) {
                while self.at < self.tokens.len() && !self.takes(&["}"]) {
                    self.tree(module, &path);
                    self.takes(&[","]);
                }
                return;
            }
            if self.takes(&["as"]) {
                name = Some(self.peek().to_owned());
            } else if path.is_empty() || !matches!(self.peek(), "::" | "*" | "self") {
                path.push(self.peek().to_owned());
            }
            self.at += 1;
        }
        if let Some(last) = path.last().cloned() {
            self.source.uses.push((module.to_vec(), path, name.unwrap_or(last)));
        }
    }

    /// Reads a path of more than one word, or one token.
    fn path(&mut self, module: &[String]) {
        let starts = self.at == 0 || self.tokens[self.at - 1] != "::";
        let mut path = vec![self.peek().to_owned()];
        self.at += 1;
        while starts
            && self.peek() == "::"
            && self.tokens.get(self.at + 1).is_some_and(|next| next.starts_with(is_word))
        {
            path.push(self.tokens[self.at + 1].to_owned());
            self.at += 2;
        }
        if path.len() > 1 {
            self.source.paths.push((module.to_vec(), path));
        }
    }
}

/// The imports of `crate::here`, one string each.
fn imports(text: &str) -> Vec<String> {
    let source = Source::read(text, &["here".to_owned()]);
    let mut imports: Vec<String> = source.imports().iter().map(|(_, path)| path.join("::")).collect();
    imports.sort();
    imports
}

#[test]
fn trees_of_use_are_read() {
    assert_eq!(imports("use crate::{a::{self, b as c, d::*}, E};"), ["E", "a", "a::b", "a::d"]);
    assert_eq!(imports("pub(crate) use super::a; use self::b::C;"), ["a", "here::b::C"]);
    assert_eq!(imports("mod deep { use super::super::a; use super::b; }"), ["a", "here::b"]);
    assert_eq!(imports("mod child; pub use child::A; use ::std::fmt; use std::io;"), ["here::child::A"]);
    assert_eq!(imports("pub(in super::super) fn f() -> impl Sized + use<'a> { super::a() }"), ["a"]);
}

#[test]
fn paths_in_code_are_read() {
    assert_eq!(imports("fn f() -> super::A { crate::b::new::<super::C>() }"), ["A", "C", "b::new"]);
    assert_eq!(imports("mod child; fn f() { child::g(); std::child::h(); other::i() }"), ["here::child::g"]);
    assert_eq!(imports("use crate::a as b; fn f() { b::c::d() }"), ["a", "a::c::d"]);
}

#[test]
fn what_is_no_code_and_what_only_tests_see_is_passed_over() {
    assert!(imports("// use super::a;\n/* use super::b; /* */ use super::c; */").is_empty());
    assert!(
        imports(r##"const A: &str = "\"use super::a;"; const B: &str = r#"use "super::b"#;"##).is_empty()
    );
    assert_eq!(imports("const A: [char; 2] = ['\"', '\\'']; use super::a; fn f<'a>() {}"), ["a"]);
    assert!(imports("#[cfg(test)] mod tests { fn f() { super::a() } } #[cfg(test)] mod more;").is_empty());
    assert_eq!(imports("#[cfg(test)] use super::{a, b}; use super::c;"), ["c"]);
}
