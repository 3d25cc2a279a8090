//! The indices of depmod, separated by NUL: modules.dep, modules.alias, modules.softdep, modules.builtin, and names. What is loaded is
//! loaded once, after what it needs, and an image that has just that has the same.
#![cfg_attr(fuzzing, no_main)]

use imprint::kmod::{Index, Texts, name_of};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.splitn(5, '\0');
    let mut next = || parts.next().unwrap_or_default();
    let texts = Texts { dep: next(), alias: next(), softdep: next(), builtin: next() };
    let names: Vec<&str> = next().split_whitespace().collect();
    let Ok(index) = Index::parse(&texts) else { return };
    let Ok(order) = index.closure(names.iter().copied()) else { return };
    let mut seen: Vec<_> = order.iter().map(|path| name_of(path).unwrap()).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), order.len());
    let [dep, alias, softdep] = index.only(&order, str::to_owned);
    let kept = Texts { dep: &dep, alias: &alias, softdep: &softdep, builtin: texts.builtin };
    let kept = Index::parse(&kept).unwrap();
    for (name, module) in kept.modules() {
        assert_eq!(Some(module), index.module(name));
    }
});
