//! Finds in source text which module of a crate uses which other one. Reads macros like other code; skips comments,
//! strings, visibilities and test code. Refuses a path that only a macro's argument completes (`crate::$module`): where
//! it leads is not in the text. Never judges which use is allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::path::Path;

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree, token_stream};

/// `["line", "frame"]` for `crate::line::frame`; empty for the crate itself.
pub(super) type Module = Vec<String>;

/// What the sources of one crate say.
#[derive(Default)]
pub(super) struct Crate {
    /// The modules directly below each one, in the order in which it declares them.
    pub(super) children: BTreeMap<Module, Vec<String>>,
    /// Which module names which other one, and in what words.
    pub(super) arrows: BTreeSet<(Module, Module, String)>,
}

/// Reads a crate, beginning at its `lib.rs`. `text`: the source of a module.
pub(super) fn read(text: &dyn Fn(&Module) -> String) -> Crate {
    let mut found = Crate::default();
    let mut paths = Vec::new();
    let mut files = vec![Module::new()];
    let mut known = BTreeSet::new();
    while let Some(file) = files.pop() {
        let tokens: TokenStream = text(&file).parse().unwrap_or_else(|error| panic!("{file:?}: {error}"));
        let mut reader = Reader { file: file.clone(), declared: Vec::new(), paths: Vec::new() };
        reader.items(tokens, &file);
        for name in &reader.declared {
            files.push([file.as_slice(), std::slice::from_ref(name)].concat());
        }
        found.children.insert(file.clone(), reader.declared);
        paths.extend(reader.paths.into_iter().map(|(scope, path)| (file.clone(), scope, path)));
        known.insert(file);
    }
    for (file, scope, path) in paths {
        let Some(mut target) = absolute(&found, &scope, &path) else { continue };
        // What is behind the module is an item in it.
        while !known.contains(&target) {
            target.pop();
        }
        if target != file {
            found.arrows.insert((file, target, path.join("::")));
        }
    }
    found
}

/// The text of a module in a folder of sources.
pub(super) fn on_disk(folder: &Path) -> impl Fn(&Module) -> String {
    move |module| {
        let path = match module.as_slice() {
            [] => folder.join("lib.rs"),
            names => folder.join(names.join("/")).with_extension("rs"),
        };
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// Where a path leads, as it stands in `scope`; `None`: into another crate, or to something that was imported.
fn absolute(found: &Crate, scope: &Module, path: &[String]) -> Option<Module> {
    let (first, rest) = path.split_first()?;
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        // `self::super::…` is `super::…`.
        "self" if rest.first().is_some_and(|word| word == "super") => absolute(found, scope, rest),
        "self" => Some([scope, rest].concat()),
        "super" => {
            let mut outer = scope.clone();
            outer.pop();
            match rest.first().map(String::as_str) {
                Some("super") => absolute(found, &outer, rest),
                _ => Some([&outer, rest].concat()),
            }
        }
        child => {
            let is_child = found.children.get(scope).is_some_and(|names| names.iter().any(|name| name == child));
            is_child.then(|| [scope, path].concat())
        }
    }
}

/// Reads one file.
struct Reader {
    file: Module,
    declared: Vec<String>,
    /// Module that a path stands in, and the path.
    paths: Vec<(Module, Vec<String>)>,
}

type Tokens = Peekable<token_stream::IntoIter>;

impl Reader {
    fn items(&mut self, tokens: TokenStream, scope: &Module) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    if let Some(TokenTree::Group(attribute)) = tokens.peek().cloned()
                        && is_for_tests(attribute.stream())
                    {
                        tokens.next();
                        skip_item(&mut tokens);
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                TokenTree::Group(group) => self.items(group.stream(), scope),
                TokenTree::Ident(ident) => self.word(&ident, &mut tokens, scope),
            }
        }
    }

    fn word(&mut self, ident: &Ident, tokens: &mut Tokens, scope: &Module) {
        match ident.to_string().as_str() {
            // `use<'a>` in a type is none.
            "use" if !is_punct(tokens.peek(), '<') => self.tree(tokens, &mut Vec::new(), scope),
            "mod" => {
                let Some(TokenTree::Ident(name)) = tokens.next() else { return };
                match tokens.next() {
                    Some(TokenTree::Group(body)) => {
                        self.items(body.stream(), &[scope.as_slice(), &[name.to_string()]].concat());
                    }
                    _ => {
                        assert_eq!(*scope, self.file, "module {name} is a file below a module that is none");
                        self.declared.push(name.to_string());
                    }
                }
            }
            "pub" => {
                // `pub(in crate::…)` imports nothing.
                tokens.next_if(
                    |next| matches!(next, TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis),
                );
            }
            first => {
                let mut path = vec![first.to_owned()];
                while is_punct(tokens.peek(), ':') {
                    tokens.next();
                    if !is_punct(tokens.peek(), ':') {
                        break;
                    }
                    tokens.next();
                    match tokens.peek() {
                        Some(TokenTree::Ident(ident)) => path.push(ident.to_string()),
                        Some(TokenTree::Punct(punct)) if punct.as_char() == '$' => {
                            assert!(
                                !["crate", "self", "super"].contains(&first),
                                "{}: a macro's argument completes {}::$…; write the whole path",
                                self.file.join("::"),
                                path.join("::")
                            );
                            break;
                        }
                        _ => break,
                    }
                    tokens.next();
                }
                if path.len() > 1 {
                    self.paths.push((scope.clone(), path));
                }
            }
        }
    }

    /// What stands behind `use`: a path, or a list of paths in braces behind one.
    fn tree(&mut self, tokens: &mut Tokens, prefix: &mut Vec<String>, scope: &Module) {
        let depth = prefix.len();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => {}
                TokenTree::Punct(punct) if punct.as_char() == '*' => prefix.push("*".to_owned()),
                // `use $crate::…` in a macro is a path like others; a macro's argument behind it is refused.
                TokenTree::Punct(punct) if punct.as_char() == '$' => assert!(
                    prefix.is_empty(),
                    "{}: a macro's argument completes {}::$…; write the whole path",
                    self.file.join("::"),
                    prefix.join("::")
                ),
                TokenTree::Ident(ident) if ident == "as" => {
                    tokens.next();
                }
                TokenTree::Ident(ident) => prefix.push(ident.to_string()),
                TokenTree::Group(group) => {
                    let mut inner = group.stream().into_iter().peekable();
                    while inner.peek().is_some() {
                        self.tree(&mut inner, prefix, scope);
                    }
                    prefix.truncate(depth);
                }
                // The end of this one: a comma or a semicolon.
                _ => break,
            }
        }
        if prefix.len() > depth {
            // `use a::{self}` is `use a`.
            let path = prefix.iter().enumerate().filter(|(at, word)| *at == 0 || *word != "self");
            self.paths.push((scope.clone(), path.map(|(_, word)| word.clone()).collect()));
        }
        prefix.truncate(depth);
    }
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

/// `[cfg(test)]`, `[cfg(all(test, …))]`: whether the item is compiled in tests only.
fn is_for_tests(attribute: TokenStream) -> bool {
    let mut words = attribute.into_iter();
    let is_cfg = matches!(words.next(), Some(TokenTree::Ident(ident)) if ident == "cfg");
    is_cfg && matches!(words.next(), Some(TokenTree::Group(condition)) if needs_test(condition.stream()))
}

/// Whether a condition is true in tests only: `test`, an `all` with such a part, an `any` of such parts alone.
fn needs_test(condition: TokenStream) -> bool {
    let mut words = condition.into_iter();
    let Some(TokenTree::Ident(name)) = words.next() else { return false };
    let inner = match words.next() {
        None => return name == "test",
        Some(TokenTree::Group(inner)) => parts(inner.stream()),
        Some(_) => return false,
    };
    match name.to_string().as_str() {
        "all" => inner.into_iter().any(needs_test),
        "any" => !inner.is_empty() && inner.into_iter().all(needs_test),
        _ => false,
    }
}

/// The parts of a list, which commas separate.
fn parts(list: TokenStream) -> Vec<TokenStream> {
    let tokens: Vec<TokenTree> = list.into_iter().collect();
    let parts = tokens.split(|token| is_punct(Some(token), ','));
    parts.filter(|part| !part.is_empty()).map(|part| part.iter().cloned().collect()).collect()
}

/// Skips the item that an attribute stands before. An item ends with its semicolon or its body; a field, a variant, a
/// parameter or an arm ends with a comma or its body, or with the list that it stands in.
fn skip_item(tokens: &mut Tokens) {
    while is_punct(tokens.peek(), '#') {
        tokens.next();
        tokens.next();
    }
    let mut angles = 0_u32;
    let mut before = ' ';
    let is_item = is_item(tokens);
    while let Some(token) = tokens.next() {
        let last = std::mem::replace(&mut before, ' ');
        match token {
            TokenTree::Punct(punct) => {
                before = punct.as_char();
                match before {
                    ';' => return,
                    // In `Vec<A, B>` a comma ends nothing; the angle of `->` and `=>` closes nothing.
                    ',' if angles == 0 && !is_item => return,
                    '<' => angles += 1,
                    '>' if last != '-' && last != '=' => angles = angles.saturating_sub(1),
                    _ => {}
                }
            }
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                // `=> {…}` ends an arm with a comma or without; `{…},` ends a variant.
                if is_punct(tokens.peek(), ',') {
                    tokens.next();
                }
                // `use a::{b};`, `const A: B = B {…};`, `B {…}.go();`: more of the same statement.
                let goes_on = matches!(tokens.peek(), Some(TokenTree::Punct(next)) if ";.?".contains(next.as_char()));
                if !goes_on {
                    return;
                }
            }
            _ => {}
        }
    }
}

/// Whether an item or a statement follows, in which a comma ends nothing: `use`, `fn f<A, B>(…) where A: X, B: Y {`.
fn is_item(tokens: &Tokens) -> bool {
    let mut ahead = tokens.clone();
    loop {
        match ahead.next() {
            Some(TokenTree::Ident(word)) => match word.to_string().as_str() {
                "pub" => {
                    if matches!(ahead.peek(), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis)
                    {
                        ahead.next();
                    }
                }
                word => return ITEMS.contains(&word),
            },
            _ => return false,
        }
    }
}

/// The words that begin an item or a statement.
const ITEMS: [&str; 15] = [
    "use", "mod", "fn", "const", "static", "type", "struct", "enum", "union", "trait", "impl", "unsafe", "async",
    "extern", "let",
];
