//! "Did you mean": the known word that a mistyped one is most like.
//!
//! Owns: the distance between words.
//! Never: knows what the words are for.

/// Returns the candidate within a third of the word's length in edits, if there is one.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    let near = candidates.into_iter().map(|candidate| (distance(word, candidate), candidate));
    near.filter(|(edits, _)| *edits <= limit).min().map(|(_, candidate)| candidate)
}

/// Counts the insertions, deletions, replacements and swaps of neighbours that lead from `a` to `b`,
/// in any case of letters (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let [a, b] = [a, b].map(|text| text.to_lowercase().chars().collect::<Vec<_>>());
    if a.len().abs_diff(b.len()) > a.len() {
        return usize::MAX;
    }
    let mut before: Vec<usize> = vec![];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = above[j] + usize::from(x != y);
            let mut best = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        (before, above) = (above, row);
    }
    above.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_near_and_other_words_are_not() {
        let keys = ["password", "username", "caller_id", "uri"];
        for (word, want) in [
            ("pasword", Some("password")),
            ("passwrod", Some("password")),
            ("callerid", Some("caller_id")),
            ("caller-id", Some("caller_id")),
            ("URI", Some("uri")),
            ("url", Some("uri")),
            ("secret", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, keys), want, "{word}");
        }
    }
}
