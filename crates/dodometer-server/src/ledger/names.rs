//! Texts, each kept once and known by a number.
//!
//! Invariant: at most as many texts are kept as was said; every text after that is
//! [`Symbol::OTHER`]. A symbol keeps its meaning for the life of its [`Names`].

use std::collections::HashMap;
use std::sync::Arc;

/// The number of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Symbol(u32);

impl Symbol {
    /// There is no text.
    pub(crate) const NONE: Self = Self(0);
    /// The text was one too many.
    pub(crate) const OTHER: Self = Self(1);

    /// For arrays that run parallel to the texts.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

pub(crate) struct Names {
    known: HashMap<Arc<str>, Symbol>,
    /// What a text is that is not known: [`Symbol::OTHER`] once there was one too many.
    unknown: Symbol,
    /// The two symbols that are no texts come first.
    texts: Vec<Option<Arc<str>>>,
    most: usize,
}

impl Names {
    pub(crate) fn new(most: usize) -> Self {
        Self { known: HashMap::new(), unknown: Symbol::NONE, texts: vec![None, None], most }
    }

    /// The symbol of a text, which is kept if there is room.
    pub(crate) fn symbol(&mut self, text: &str) -> Symbol {
        if let Some(&symbol) = self.known.get(text) {
            return symbol;
        }
        if self.known.len() >= self.most {
            self.unknown = Symbol::OTHER;
            return Symbol::OTHER;
        }
        let symbol = Symbol(self.texts.len() as u32);
        let text: Arc<str> = text.into();
        self.texts.push(Some(Arc::clone(&text)));
        self.known.insert(text, symbol);
        symbol
    }

    /// The symbol of a text, if it came before: [`Symbol::OTHER`] is also that of one which may have.
    pub(crate) fn find(&self, text: &str) -> Symbol {
        self.known.get(text).copied().unwrap_or(self.unknown)
    }

    pub(crate) fn text(&self, symbol: Symbol) -> Option<&str> {
        self.texts.get(symbol.index())?.as_deref()
    }

    /// Every text and its symbol, in the order in which they came.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Symbol, &str)> {
        (0..)
            .map(Symbol)
            .zip(&self.texts)
            .filter_map(|(symbol, text)| text.as_deref().map(|text| (symbol, text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_one_too_many_is_other() {
        let mut names = Names::new(2);
        let (a, b) = (names.symbol("a"), names.symbol("b"));
        assert_ne!(a, b);
        assert_eq!((names.find("b"), names.find("c")), (b, Symbol::NONE));
        assert_eq!((names.symbol("a"), names.symbol("c")), (a, Symbol::OTHER));
        assert_eq!((names.find("b"), names.find("c")), (b, Symbol::OTHER));
        assert_eq!((names.text(b), names.text(Symbol::OTHER)), (Some("b"), None));
        assert_eq!(names.iter().collect::<Vec<_>>(), [(a, "a"), (b, "b")]);
    }
}
