//! Messages with places to fill in, taken apart once.
//!
//! Owns: the pieces. Never: knows what they say.

/// A text with `{name}` in it, as pieces. `{` does not stand for itself.
#[derive(Clone, Debug)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
enum Piece {
    Text(Vec<u8>),
    Field(usize),
}

impl Template {
    /// Takes a text apart. Lines may end in `\n`; CRLF is written. `names` are those of the fields
    /// in the order in which `fill` gets them; other words in braces remain as they are.
    pub fn new(text: &str, names: &[&str]) -> Self {
        let text = text.replace("\r\n", "\n").replace('\n', "\r\n");
        let mut pieces = vec![];
        let mut rest = text.as_str();
        let mut literal = String::new();
        while let Some((before, after)) = rest.split_once('{') {
            literal.push_str(before);
            let field = after.split_once('}').and_then(|(name, after)| {
                names.iter().position(|known| *known == name).map(|number| (number, after))
            });
            if let Some((number, after)) = field {
                pieces.push(Piece::Text(std::mem::take(&mut literal).into_bytes()));
                pieces.push(Piece::Field(number));
                rest = after;
            } else {
                literal.push('{');
                rest = after;
            }
        }
        literal.push_str(rest);
        pieces.push(Piece::Text(literal.into_bytes()));
        Self { pieces }
    }

    /// Adds a text that is taken as it is.
    pub fn push(&mut self, text: &str) {
        self.pieces.push(Piece::Text(text.as_bytes().to_vec()));
    }

    /// Appends it with its fields.
    pub fn fill(&self, fields: &[&[u8]], out: &mut Vec<u8>) {
        for piece in &self.pieces {
            out.extend_from_slice(match piece {
                Piece::Text(text) => text,
                Piece::Field(number) => fields[*number],
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_filled_in_and_lines_end_in_crlf() {
        let mut template =
            Template::new("BYE {uri} SIP/2.0\nX: {a}{uri}\r\n\n{other}", &["a", "uri"]);
        template.push("\n{a}");
        let mut out = b"before ".to_vec();
        template.fill(&[b"1", b"sip:x"], &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "before BYE sip:x SIP/2.0\r\nX: 1sip:x\r\n\r\n{other}\n{a}");
    }
}
