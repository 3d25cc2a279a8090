//! The indices that depmod(8) writes beside the modules of a kernel, and which modules a name, an alias or a device's MODALIAS needs, in
//! the order in which they are loaded. Whoever built the image vouches for these files; they are parsed within bounds all the same. Pure:
//! never reads a file, and never loads a module.

mod glob;
mod pack;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use glob::matches;
pub use pack::{MAX_MODULE, Packing, UnpackError, unpack};

use crate::shown::Printable;

/// The names of the files, below `/lib/modules/VERSION`.
pub const DEP: &str = "modules.dep";
/// See [`DEP`].
pub const ALIAS: &str = "modules.alias";
/// See [`DEP`].
pub const SOFTDEP: &str = "modules.softdep";
/// See [`DEP`].
pub const BUILTIN: &str = "modules.builtin";

/// The longest of these files, in bytes. That of Debian's kernel for all machines has 1.3 MB.
pub const MAX_INDEX: usize = 16 * 1024 * 1024;
/// The longest path, alias or name, in bytes.
const MAX_WORD: usize = 4096;

/// The contents of the four files. A file that is not there is empty.
#[derive(Clone, Copy, Default, Debug)]
pub struct Texts<'a> {
    /// `modules.dep`
    pub dep: &'a str,
    /// `modules.alias`
    pub alias: &'a str,
    /// `modules.softdep`
    pub softdep: &'a str,
    /// `modules.builtin`
    pub builtin: &'a str,
}

/// What the four files say.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Index<'a> {
    modules: BTreeMap<Cow<'a, str>, Module<'a>>,
    /// Pattern and module, in the order of the file.
    aliases: Vec<(&'a str, &'a str)>,
    soft: BTreeMap<Cow<'a, str>, Soft<'a>>,
    builtin: BTreeSet<Cow<'a, str>>,
}

/// A module that has a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Module<'a> {
    /// Below `/lib/modules/VERSION`: `kernel/fs/ext4/ext4.ko`.
    pub path: &'a str,
    /// The paths of the modules that it needs. The last one is loaded first.
    pub needs: Vec<&'a str>,
}

/// Modules, or aliases of modules, that are loaded with another one where they are there.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Soft<'a> {
    before: Vec<&'a str>,
    after: Vec<&'a str>,
}

/// What a name stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resolved<'a> {
    /// The modules of that name or alias, by their normal names.
    Modules(Vec<&'a str>),
    /// The kernel itself has it.
    Builtin,
    /// Nothing has that name.
    Unknown,
}

/// Why a file is no index of modules.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IndexError {
    /// The file is too long.
    TooLong {
        /// Its name.
        file: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// A line does not have the form that depmod writes.
    Line {
        /// The name of the file.
        file: &'static str,
        /// From 1.
        number: usize,
    },
}

/// The name of a module as the kernel has it: `-` and `_` are the same there (scripts/Makefile.lib, name-fix).
pub fn normal(name: &str) -> Cow<'_, str> {
    if name.contains('-') { Cow::Owned(name.replace('-', "_")) } else { Cow::Borrowed(name) }
}

/// The normal name of the module in a file: `kernel/drivers/net/virtio-x.ko.xz` is `virtio_x`. `None`: the file is no module.
pub fn name_of(path: &str) -> Option<Cow<'_, str>> {
    let file = path.rsplit('/').next().unwrap_or(path);
    let (name, packed) = file.split_once(".ko")?;
    let sound = !name.is_empty() && (packed.is_empty() || packed.starts_with('.'));
    sound.then(|| normal(name))
}

impl<'a> Index<'a> {
    /// Parses the files.
    pub fn parse(texts: &Texts<'a>) -> Result<Index<'a>, IndexError> {
        let mut index = Index::default();
        for (number, line) in lines(DEP, texts.dep)? {
            let bad = || IndexError::Line { file: DEP, number };
            let (path, needs) = line.split_once(':').ok_or_else(bad)?;
            let name = name_of(sound(path).ok_or_else(bad)?).ok_or_else(bad)?;
            let needs: Option<Vec<&str>> = needs.split_ascii_whitespace().map(sound).collect();
            index.modules.insert(name, Module { path, needs: needs.ok_or_else(bad)? });
        }
        for (number, line) in lines(ALIAS, texts.alias)? {
            let bad = || IndexError::Line { file: ALIAS, number };
            let rest = line.strip_prefix("alias ").ok_or_else(bad)?;
            // An alias may have blanks (that of a machine's firmware), and the name of a module has none.
            let (pattern, module) = rest.trim_end().rsplit_once(' ').ok_or_else(bad)?;
            if pattern.len() > MAX_WORD || module.len() > MAX_WORD {
                return Err(bad());
            }
            index.aliases.push((pattern.trim(), module));
        }
        for (number, line) in lines(SOFTDEP, texts.softdep)? {
            let bad = || IndexError::Line { file: SOFTDEP, number };
            let mut words = line.strip_prefix("softdep ").ok_or_else(bad)?.split_ascii_whitespace();
            let soft = index.soft.entry(normal(words.next().ok_or_else(bad)?)).or_default();
            let mut list = None;
            for word in words {
                match (word, list) {
                    ("pre:", _) => list = Some(false),
                    ("post:", _) => list = Some(true),
                    (word, Some(false)) => soft.before.push(word),
                    (word, Some(true)) => soft.after.push(word),
                    // libkmod, too, ignores words before the first `pre:`; Debian's kernel has some ("softdep cifs gcm").
                    (_, None) => {}
                }
            }
        }
        for (_, line) in lines(BUILTIN, texts.builtin)? {
            index.builtin.extend(name_of(line.trim()));
        }
        Ok(index)
    }

    /// The module of this name.
    pub fn module(&self, name: &str) -> Option<&Module<'a>> {
        self.modules.get(&*normal(name))
    }

    /// All modules with their normal names.
    pub fn modules(&self) -> impl Iterator<Item = (&str, &Module<'a>)> {
        self.modules.iter().map(|(name, module)| (name.as_ref(), module))
    }

    /// What a name or an alias stands for. A module of that name goes before an alias.
    pub fn resolve(&self, name: &str) -> Resolved<'_> {
        if let Some((name, _)) = self.modules.get_key_value(&*normal(name)) {
            return Resolved::Modules(vec![name.as_ref()]);
        }
        if self.builtin.contains(&*normal(name)) {
            return Resolved::Builtin;
        }
        match self.matching(name) {
            modules if modules.is_empty() => Resolved::Unknown,
            modules => Resolved::Modules(modules),
        }
    }

    /// The modules with an alias that matches, each once, by their normal names: the drivers of a device with this MODALIAS. Modules
    /// that have no file are left out.
    pub fn matching(&self, modalias: &str) -> Vec<&str> {
        let modalias = &*normal(modalias);
        let mut found: Vec<&str> = Vec::new();
        for (pattern, module) in &self.aliases {
            if matches(pattern, modalias)
                && let Some((name, _)) = self.modules.get_key_value(&*normal(module))
                && !found.contains(&name.as_ref())
            {
                found.push(name);
            }
        }
        found
    }

    /// The paths of these modules and of all that they need, in the order in which they are loaded, each once. Names may be aliases.
    /// What the kernel itself has needs no file, and so does a soft dependency that is not there. `Err`: the first name that stands for
    /// nothing.
    pub fn closure<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<Vec<&'a str>, &'n str> {
        let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
        for name in names {
            match self.resolve(name) {
                Resolved::Modules(modules) => {
                    modules.into_iter().for_each(|one| self.visit(one, &mut seen, &mut order))
                }
                Resolved::Builtin => {}
                Resolved::Unknown => return Err(name),
            }
        }
        Ok(order)
    }

    /// Without recursion: an index may make a chain of any length, or a circle.
    fn visit(&self, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<&'a str>) {
        enum Step<'s, 'a> {
            Module(Cow<'s, str>),
            /// A module without a line of its own.
            Leaf(&'a str),
            Done(&'a str),
        }
        let mut steps = vec![Step::Module(Cow::Borrowed(name))];
        while let Some(step) = steps.pop() {
            match step {
                Step::Done(path) => order.push(path),
                Step::Leaf(path) => {
                    if name_of(path).is_some_and(|name| seen.insert(name.into_owned())) {
                        order.push(path);
                    }
                }
                Step::Module(name) => {
                    let Some(module) = self.modules.get(&*name) else { continue };
                    if !seen.insert(name.clone().into_owned()) {
                        continue;
                    }
                    let soft = self.soft.get(&*name);
                    // The last step that is put here is the first one that is taken.
                    steps.extend(self.soft_steps(soft.map(|soft| &soft.after)).map(Step::Module));
                    steps.push(Step::Done(module.path));
                    for path in &module.needs {
                        steps.push(match name_of(path).filter(|name| self.modules.contains_key(&**name)) {
                            Some(name) => Step::Module(name),
                            None => Step::Leaf(path),
                        });
                    }
                    steps.extend(self.soft_steps(soft.map(|soft| &soft.before)).map(Step::Module));
                }
            }
        }
    }

    /// The modules of soft dependencies, the last one first.
    fn soft_steps<'s>(&'s self, names: Option<&'s Vec<&'a str>>) -> impl Iterator<Item = Cow<'s, str>> {
        names.into_iter().flatten().rev().flat_map(|name| -> Vec<Cow<'s, str>> {
            match self.resolve(name) {
                Resolved::Modules(modules) => modules.into_iter().rev().map(Cow::Borrowed).collect(),
                Resolved::Builtin | Resolved::Unknown => Vec::new(),
            }
        })
    }

    /// The lines of the files that are about these modules only, for an image that has no others: `modules.dep`, `modules.alias` and
    /// `modules.softdep`, each in the order that it has here. The paths are those that [`Index::closure`] gives; `renamed` says what a
    /// path is in the image, where a module may be stored unpacked.
    pub fn only(&self, paths: &[&str], renamed: impl Fn(&str) -> String) -> [String; 3] {
        let kept: BTreeSet<Cow<'_, str>> = paths.iter().filter_map(|path| name_of(path)).collect();
        let has = |name: &str| kept.contains(name);
        let [mut dep, mut alias, mut softdep] = [const { String::new() }; 3];
        for (_, module) in self.modules.iter().filter(|(name, _)| has(name)) {
            dep.push_str(&renamed(module.path));
            dep.push(':');
            for need in &module.needs {
                dep.push(' ');
                dep.push_str(&renamed(need));
            }
            dep.push('\n');
        }
        for (pattern, module) in self.aliases.iter().filter(|(_, module)| has(&normal(module))) {
            alias.extend(["alias ", pattern, " ", module, "\n"]);
        }
        for (name, soft) in self.soft.iter().filter(|(name, _)| has(name)) {
            softdep.extend(["softdep ", name]);
            for (word, names) in [(" pre:", &soft.before), (" post:", &soft.after)] {
                if !names.is_empty() {
                    softdep.push_str(word);
                    names.iter().for_each(|name| softdep.extend([" ", name]));
                }
            }
            softdep.push('\n');
        }
        [dep, alias, softdep]
    }
}

/// A relative path that leads to no other folder, of a sane length.
fn sound(path: &str) -> Option<&str> {
    let parts = |path: &str| path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    (path.len() <= MAX_WORD && parts(path)).then_some(path)
}

/// The lines with their numbers, without comments and empty ones.
fn lines<'a>(file: &'static str, text: &'a str) -> Result<impl Iterator<Item = (usize, &'a str)>, IndexError> {
    if text.len() > MAX_INDEX {
        return Err(IndexError::TooLong { file, len: text.len() });
    }
    let numbered = (1..).zip(text.lines());
    Ok(numbered.filter(|(_, line)| !line.trim_start().starts_with('#') && !line.trim().is_empty()))
}

/// The names in a list of modules, such as `/imprint/modules`: one a line; `#` starts a comment. `Err`: the number of a line that holds
/// anything else, and what it holds.
pub fn listed(text: &str) -> Result<Vec<&str>, (usize, Printable)> {
    let mut names = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let name = line.split('#').next().unwrap_or_default().trim();
        if name.len() > MAX_WORD || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
            return Err((number, Printable::up_to(line, 80)));
        }
        names.extend(Some(name).filter(|name| !name.is_empty()));
    }
    Ok(names)
}

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IndexError::TooLong { file, len } => {
                write!(f, "{file} has {len} bytes, and at most {MAX_INDEX} are read; run depmod again")
            }
            IndexError::Line { file, number } => {
                write!(f, "line {number} of {file} is not as depmod writes it; run depmod again")
            }
        }
    }
}

impl std::error::Error for IndexError {}

#[cfg(test)]
mod tests;
