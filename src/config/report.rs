//! Everything that is wrong, with the line, a caret and what to write instead.
//!
//! Owns: diagnostics, the texts they point into, and `annotate-snippets`, which draws them.
//! Never: finds anything wrong itself.

use super::{problem::Problem, raw::Span};
use crate::dialplan::Origin;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// Nothing starts with it.
    Error,
    /// It starts, but probably not as meant.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Diagnostic {
    /// What.
    pub problem: Problem,
    /// Where.
    pub span: Span,
    /// What else has to do with it: a place and a few words.
    pub related: Option<(Span, &'static str)>,
}

/// A text that was read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SourceFile {
    /// As it was opened.
    pub path: Box<str>,
    /// All of it.
    pub text: Box<str>,
    /// Whether others than its owner may read it.
    pub is_public: bool,
}

/// What was read, and all that is wrong with it. `Display` draws it without colours.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// The files in the order in which they were read.
    pub files: Vec<SourceFile>,
    /// By file and place.
    pub diagnostics: Vec<Diagnostic>,
}

impl Diagnostic {
    /// Returns how bad it is.
    pub fn severity(&self) -> Severity {
        self.problem.severity()
    }
}

impl Report {
    /// Returns how many errors there are.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// Returns how many warnings there are.
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    fn count(&self, severity: Severity) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity() == severity).count()
    }

    /// Returns the file and the line of a place.
    pub fn origin(&self, span: &Span) -> Origin {
        let Some(file) = self.files.get(span.file) else { return Origin::default() };
        let before = file.text.get(..span.range.start).unwrap_or(&file.text);
        Origin { file: file.path.clone(), line: before.matches('\n').count() + 1 }
    }

    /// Draws everything, with colours or without.
    pub fn render(&self, coloured: bool) -> String {
        let renderer = if coloured { Renderer::styled() } else { Renderer::plain() };
        self.drawn(&renderer).collect::<Vec<_>>().join("\n\n")
    }

    /// Draws each mistake and warning by itself, without colours.
    pub fn problems(&self) -> Vec<String> {
        self.drawn(&Renderer::plain()).collect()
    }

    fn drawn<'a>(&'a self, renderer: &'a Renderer) -> impl Iterator<Item = String> + 'a {
        self.diagnostics.iter().map(|diagnostic| renderer.render(&[self.group(diagnostic)]))
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic) -> Group<'a> {
        let level = match diagnostic.severity() {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = diagnostic.problem.to_string();
        let mut group = Group::with_title(level.primary_title(title).id(diagnostic.problem.code()));
        if let Some(file) = self.files.get(diagnostic.span.file) {
            let snippet = Snippet::source(&*file.text).path(&*file.path);
            let primary = AnnotationKind::Primary.span(within(&diagnostic.span, file));
            group = group.element(match &diagnostic.related {
                Some((span, words)) if span.file == diagnostic.span.file => {
                    let context = AnnotationKind::Context.span(within(span, file)).label(*words);
                    snippet.annotation(primary).annotation(context)
                }
                Some(_) | None => snippet.annotation(primary),
            });
        }
        if let Some((span, words)) = &diagnostic.related
            && span.file != diagnostic.span.file
            && let Some(file) = self.files.get(span.file)
        {
            let context = AnnotationKind::Context.span(within(span, file)).label(*words);
            group =
                group.element(Snippet::source(&*file.text).path(&*file.path).annotation(context));
        }
        match diagnostic.problem.help() {
            Some(help) => group.element(Level::HELP.message(help)),
            None => group,
        }
    }
}

/// Cuts a span to the text: at its end there may be nothing to point at.
fn within(span: &Span, file: &SourceFile) -> std::ops::Range<usize> {
    let end = span.range.end.min(file.text.len());
    span.range.start.min(end)..end
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}
