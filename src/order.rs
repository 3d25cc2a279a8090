//! Sorting of short lists. The sorts of the standard library are made for long ones, and each use of them adds 5 KiB to the
//! program. Never for lists that an outsider can make longer than some thousand elements: the time grows with the square.

/// Sorts in place. Elements keep their order among each other where `is_before` puts neither first.
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
