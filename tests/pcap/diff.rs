//! Two texts beside each other, line by line.

/// Marks what only the first has with `-` and what only the second has with `+`.
pub(crate) fn lines(old: &str, new: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let common = common_lengths(&old, &new);
    let (mut a, mut b) = (0, 0);
    let mut text = String::new();
    while a < old.len() || b < new.len() {
        let (mark, line) = if a < old.len() && b < new.len() && old[a] == new[b] {
            (' ', old[a])
        } else if b == new.len() || (a < old.len() && common[a + 1][b] >= common[a][b + 1]) {
            ('-', old[a])
        } else {
            ('+', new[b])
        };
        a += usize::from(mark != '+');
        b += usize::from(mark != '-');
        text.push_str(&format!("{mark} {line}\n"));
    }
    text
}

/// How many lines `old[a..]` and `new[b..]` have in common, in order, for every `a` and `b`.
fn common_lengths(old: &[&str], new: &[&str]) -> Vec<Vec<usize>> {
    let mut common = vec![vec![0; new.len() + 1]; old.len() + 1];
    for a in (0..old.len()).rev() {
        for b in (0..new.len()).rev() {
            common[a][b] = if old[a] == new[b] {
                common[a + 1][b + 1] + 1
            } else {
                common[a + 1][b].max(common[a][b + 1])
            };
        }
    }
    common
}

#[test]
fn what_differs_is_marked() {
    assert_eq!(lines("a\nb\nc\nd", "a\nx\nc\ne\nd"), "  a\n- b\n+ x\n  c\n+ e\n  d\n");
    assert_eq!(lines("", "a"), "+ a\n");
    assert_eq!(lines("a", ""), "- a\n");
}
