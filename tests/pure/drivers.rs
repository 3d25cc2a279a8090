//! Compares the lists of drivers that the builders of images have: each is in a language of its own, and all are to have the same.

use std::collections::BTreeSet;

fn file(path: &str) -> String {
    std::fs::read_to_string(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The names behind `word` and before `end`, each time that it stands there. Lines that go on, and names with something in them that no
/// module has, are taken care of.
fn names(text: &str, word: &str, end: &str) -> BTreeSet<String> {
    let text = text.replace("\\\n", " ");
    let lists = text.split(word).skip(1).map(|rest| rest.split(end).next().unwrap());
    let is_name = |name: &&str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    lists.flat_map(str::split_whitespace).filter(is_name).map(str::to_owned).collect()
}

#[test]
fn all_builders_have_the_same_drivers() {
    let dracut = names(&file("dracut/50imprint/module-setup.sh"), "\n    instmods ", "\n");
    assert!(dracut.len() > 40 && dracut.contains("virtio_blk") && dracut.contains("zram"), "{dracut:?}");
    let tools = names(&file("initramfs/hooks/imprint"), "\nmanual_add_modules ", "\n");
    assert_eq!(tools, dracut, "initramfs-tools and dracut");
    let arch = names(&file("mkinitcpio/install/imprint"), "for module in ", ";");
    assert_eq!(arch, dracut, "mkinitcpio and dracut");
    // A bare image has more: nobody else brings keyboards, file systems and the controllers of servers.
    let host = file("host/src/image/choice.rs");
    let bare: BTreeSet<&str> = host.split('"').skip(1).step_by(2).collect();
    let missing: Vec<&String> = dracut.iter().filter(|name| !bare.contains(name.as_str())).collect();
    assert_eq!(missing, [""; 0], "imprint-host image and dracut");
}
