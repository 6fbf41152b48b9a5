//! Who may ask: clients of this machine, pages that this server sent, whoever shows the token.
//!
//! A page of somebody else can make a browser ask any server. It gives itself away by its `Origin`,
//! or, where its own name was made to lead here (DNS rebinding), by the `Host`, which is that name.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Options;
use super::client::{Client, is_name};
use super::error::Error;
use super::problem::Problem;

/// Characters of a token, at least: with fewer it is guessed too soon.
const LEAST: usize = 16;

/// Who may ask.
pub struct Guard {
    /// What tokens come to, of one length, whatever was sent, and whose they are; empty: nobody has
    /// to show any.
    tokens: Vec<([u8; 32], Client)>,
    names: Vec<String>,
    origins: Vec<String>,
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Whether nobody but this machine reaches an address.
fn is_loopback(address: &SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback())
        }
    }
}

/// `http://localhost:3000` as browsers write it; none where it is no origin.
fn origin(text: &str) -> Option<String> {
    let uri: Uri = text.trim().trim_end_matches('/').parse().ok()?;
    let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme))?;
    let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    let authority =
        uri.authority().filter(|authority| is_bare && !authority.as_str().contains('@'))?;
    Some(format!("{scheme}://{}", authority.as_str().to_ascii_lowercase()))
}

/// The host of `host:port`, in lower case, an IPv6 address without brackets.
fn host_of(authority: &str) -> Option<String> {
    let authority = authority.parse::<Authority>().ok()?;
    if authority.as_str().contains('@') {
        return None;
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    Some(host.trim_end_matches('.').to_ascii_lowercase())
}

fn header(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("\u{fffd}"))
}

impl Guard {
    /// # Errors
    /// An address that others reach without a token; a token that is short; an origin that is none.
    pub fn new(options: &Options) -> Result<Guard, Error> {
        let own = options.token.iter().map(|token| (Client::default(), token.as_str()));
        let named = options.clients.iter();
        let named = named.map(|(name, token)| (Client::named(name), token.as_str()));
        let mut tokens: Vec<([u8; 32], Client)> = Vec::new();
        for (client, token) in own.chain(named) {
            let found = token.chars().count();
            if found < LEAST || token.contains(char::is_whitespace) {
                return Err(Error::Token { found, least: LEAST });
            }
            if let Some(name) = client.name()
                && (!is_name(name) || tokens.iter().any(|(_, other)| *other == client))
            {
                return Err(Error::Client { name: name.to_string() });
            }
            let token = digest(token);
            if tokens.iter().any(|(other, _)| *other == token) {
                return Err(Error::Shared);
            }
            tokens.push((token, client));
        }
        if tokens.is_empty() && !is_loopback(&options.address) {
            return Err(Error::Open { address: options.address });
        }
        let of = |text: &String| origin(text).ok_or_else(|| Error::Origin { found: text.clone() });
        Ok(Guard {
            tokens,
            names: options.names.iter().map(|name| name.trim().to_ascii_lowercase()).collect(),
            origins: options.origins.iter().map(of).collect::<Result<_, _>>()?,
        })
    }

    /// Whether a request is heard, and whose it is.
    pub fn check(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Client, Problem> {
        let refused = |words: &str| Err(Problem::new(StatusCode::FORBIDDEN, words));
        let mut hosts = headers.get_all(HOST).iter();
        let named = hosts.next().and_then(|value| value.to_str().ok());
        let authority = match (named, hosts.next(), uri.authority()) {
            (Some(named), None, None) => named,
            (Some(named), None, Some(authority)) if authority.as_str() == named => named,
            _ => return refused("the request does not say by one header `Host` whom it asks"),
        };
        let host = host_of(authority).unwrap_or_default();
        // A name that somebody made lead here is no address.
        let is_known =
            host == "localhost" || host.parse::<IpAddr>().is_ok() || self.names.contains(&host);
        if !is_known {
            return refused(
                "the header `Host` has a name that this server is not known by: `--name` of \
                    `mos serve` adds it",
            );
        }
        let of_page = header(headers, ORIGIN);
        if let Some(of_page) = of_page
            && !self.is_heard(of_page, authority)
        {
            return refused(
                "a page of another origin may not ask: `--origin` of `mos serve` allows one",
            );
        }
        // Browsers say so where they send no origin, as for pictures.
        let site = header(headers, "sec-fetch-site").unwrap_or("none");
        let is_visit =
            header(headers, "sec-fetch-mode") == Some("navigate") && method == Method::GET;
        if of_page.is_none() && !["none", "same-origin"].contains(&site) && !is_visit {
            return refused("a page of another origin may not ask");
        }
        // Browsers ask beforehand without the token.
        match self.tokens.is_empty() || self.is_preflight(method, headers) {
            true => Ok(Client::default()),
            false => check_token(&self.tokens, headers),
        }
    }

    /// Whether a page of that origin may ask.
    fn is_heard(&self, of_page: &str, authority: &str) -> bool {
        let found = origin(of_page);
        let own = ["http", "https"].map(|scheme| origin(&format!("{scheme}://{authority}")));
        found.is_some() && (own.contains(&found) || self.allowed(of_page).is_some())
    }

    /// The origin of another page, where it was allowed: it is told so.
    pub fn allowed(&self, of_page: &str) -> Option<&str> {
        let found = origin(of_page)?;
        self.origins.iter().find(|allowed| **allowed == found).map(String::as_str)
    }

    /// Whether an allowed page's browser asks what it may ask.
    pub fn is_preflight(&self, method: &Method, headers: &HeaderMap) -> bool {
        method == Method::OPTIONS
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
            && header(headers, ORIGIN).is_some_and(|of_page| self.allowed(of_page).is_some())
    }
}

/// A token as `Authorization: Bearer TOKEN`, or as the password of any user, and whose it is.
fn check_token(tokens: &[([u8; 32], Client)], headers: &HeaderMap) -> Result<Client, Problem> {
    let given = header(headers, AUTHORIZATION).and_then(|given| {
        let (kind, given) = given.trim().split_once(' ')?;
        match kind.to_ascii_lowercase().as_str() {
            "bearer" => Some(given.trim().to_string()),
            "basic" => {
                let pair = String::from_utf8(STANDARD.decode(given.trim()).ok()?).ok()?;
                Some(pair.split_once(':')?.1.to_string())
            }
            _ => None,
        }
    });
    let shown = given.as_deref().map(digest).unwrap_or_default();
    // All are compared, so that the time tells nothing.
    let mut whose = None;
    for (token, client) in tokens {
        if bool::from(shown.ct_eq(token)) {
            whose = Some(client);
        }
    }
    if let (Some(client), Some(_)) = (whose, &given) {
        return Ok(client.clone());
    }
    Err(Problem::new(
        StatusCode::UNAUTHORIZED,
        match given {
            Some(_) => "that is not the token of this server",
            None => {
                "this server asks for its token: `Authorization: Bearer TOKEN`, or as a password"
            }
        },
    ))
}

#[cfg(test)]
mod tests;
