//! Who asks, where a server tells its clients apart: each sees its own jobs and pictures.

use std::sync::Arc;

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// None: whoever has the server's own token, or anybody, where there are no names. It sees
    /// everything.
    name: Option<Arc<str>>,
}

impl Client {
    /// One of those that are told apart.
    pub fn named(name: &str) -> Client {
        Client { name: Some(name.into()) }
    }

    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether what is `owner`'s is shown to it.
    pub fn sees(&self, owner: &Client) -> bool {
        self.name.is_none() || self == owner
    }
}

/// The folder in that of pictures in which what they were made from is kept: no client's.
pub const INPUTS: &str = "inputs";

/// Whether that is the name of a folder of one's own in the folder of pictures.
pub fn is_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (1..=40).contains(&name.len()) && name.chars().all(is_plain) && name != INPUTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sees_its_own_and_nobody_in_particular_sees_all() {
        let (anna, ben, all) = (Client::named("anna"), Client::named("ben"), Client::default());
        assert!(anna.sees(&anna) && !anna.sees(&ben) && !anna.sees(&all));
        assert!(all.sees(&anna) && all.sees(&all));
        assert!(is_name("anna-2"));
        for name in ["", "..", "a/b", "inputs", "a b", "é", &"a".repeat(41)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
