//! The words of an error and of what caused it. Prints nothing.

/// The error and everything that caused it, outermost first, joined by `: `.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceError;

    #[test]
    fn told_once_outermost_first() {
        let error = SourceError::Read { path: "/x".into(), source: std::io::Error::other("gone") };
        assert_eq!(chain(&error), "reading /x: gone");
    }
}
