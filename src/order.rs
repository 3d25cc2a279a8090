//! Sorts short lists. The sorts of the standard library are made for long lists, and each use of one adds 5 KiB to the
//! program. Never sort a list here that an outsider can make longer than some thousand elements: the time grows with
//! the square of the length.

/// Sorts in place. Two elements keep their order if `is_before` puts neither of them first.
pub fn sort<T>(items: &mut [T], mut is_before: impl FnMut(&T, &T) -> bool) {
    for end in 1..items.len() {
        let mut at = end;
        while let Some([one, other]) = at.checked_sub(1).and_then(|start| items.get_mut(start..=at))
            && is_before(other, one)
        {
            std::mem::swap(one, other);
            at = at.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn as_the_standard_library_does(items in proptest::collection::vec((0u8..10, 0u8..100), 0..40)) {
            let (mut ours, mut theirs) = (items.clone(), items);
            sort(&mut ours, |one, other| one.0 < other.0);
            theirs.sort_by_key(|item| item.0);
            assert_eq!(ours, theirs);
        }
    }
}
