use axum::http::{HeaderName, HeaderValue};

use super::*;

const TOKEN: &str = "0123456789abcdef";

fn guard(change: impl FnOnce(&mut Options)) -> Guard {
    let mut options = Options::default();
    change(&mut options);
    Guard::new(&options).unwrap()
}

fn asked(guard: &Guard, method: Method, headers: &[(&'static str, &str)]) -> Option<StatusCode> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    let uri = Uri::from_static("/api/jobs");
    guard.check(&method, &uri, &map).err().map(|problem| problem.status)
}

#[test]
fn hosts_that_are_names_are_refused_unless_they_were_named() {
    let guard = guard(|options| options.names = vec!["Studio.local".into()]);
    for host in [
        "localhost",
        "localhost:7860",
        "LOCALHOST",
        "127.0.0.1:7860",
        "[::1]:7860",
        "10.0.0.7",
        "studio.local:80",
        "studio.local.",
    ] {
        assert_eq!(asked(&guard, Method::GET, &[("host", host)]), None, "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:7860",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "localhost@evil.example",
        "evil.example@localhost",
        "local host",
        "127.0.0.1, evil",
    ] {
        let status = asked(&guard, Method::GET, &[("host", host)]);
        assert_eq!(status, Some(StatusCode::FORBIDDEN), "{host}");
    }
    let two = [("host", "localhost"), ("host", "localhost")];
    assert_eq!(asked(&guard, Method::GET, &two), Some(StatusCode::FORBIDDEN));
    assert_eq!(asked(&guard, Method::GET, &[]), Some(StatusCode::FORBIDDEN));
}

#[test]
fn pages_of_other_origins_are_refused() {
    let guard = guard(|options| options.origins = vec!["http://localhost:3000/".into()]);
    let host = ("host", "localhost:7860");
    for origin in ["http://localhost:7860", "http://LOCALHOST:7860", "http://localhost:3000"] {
        assert_eq!(asked(&guard, Method::POST, &[host, ("origin", origin)]), None, "{origin}");
    }
    for origin in [
        "null",
        "http://evil.example",
        "http://localhost",
        "http://localhost:7861",
        "",
        "x",
        "file://",
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE, Method::OPTIONS] {
            let status = asked(&guard, method, &[host, ("origin", origin)]);
            assert_eq!(status, Some(StatusCode::FORBIDDEN), "{origin}");
        }
    }
    let picture = [host, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")];
    assert_eq!(asked(&guard, Method::GET, &picture), Some(StatusCode::FORBIDDEN));
    let visit = [host, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
    assert_eq!(asked(&guard, Method::GET, &visit), None);
    assert_eq!(asked(&guard, Method::POST, &visit), Some(StatusCode::FORBIDDEN));
    assert_eq!(asked(&guard, Method::GET, &[host, ("sec-fetch-site", "same-origin")]), None);
}

#[test]
fn the_token_is_asked_for() {
    let guard = guard(|options| {
        options.token = Some(TOKEN.into());
        options.address = "0.0.0.0:0".parse().unwrap();
        options.origins = vec!["http://a.example".into()];
    });
    let asked = |given: &str| {
        asked(&guard, Method::GET, &[("host", "127.0.0.1"), ("authorization", given)])
    };
    let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
    for given in
        [format!("Bearer {TOKEN}"), format!("bearer  {TOKEN}"), basic(&format!("me:{TOKEN}"))]
    {
        assert_eq!(asked(&given), None, "{given}");
    }
    for given in [
        "".to_string(),
        "Bearer".into(),
        "Bearer ".into(),
        format!("Bearer {TOKEN}0"),
        format!("Bearer {}", &TOKEN[1..]),
        TOKEN.into(),
        basic(TOKEN),
        basic("me:"),
        "Basic §".into(),
        format!("Digest {TOKEN}"),
    ] {
        let Ok(_) = HeaderValue::from_str(&given) else { continue };
        assert_eq!(asked(&given), Some(StatusCode::UNAUTHORIZED), "{given}");
    }
    // What a browser asks beforehand of a page that is allowed, and of no other.
    let before = [("host", "127.0.0.1"), ("access-control-request-method", "POST")];
    let of = |origin| {
        super::tests::asked(&guard, Method::OPTIONS, &[before[0], before[1], ("origin", origin)])
    };
    assert_eq!(of("http://a.example"), None);
    assert_eq!(of("http://b.example"), Some(StatusCode::FORBIDDEN));
}

#[test]
fn clients_are_told_apart_by_their_tokens() {
    let pair = |name: &str, token: &str| (name.to_string(), token.to_string());
    let (anna, ben) = ("anna's token 1234".replace(' ', "-"), "ben0123456789abcdef");
    let new = |clients: &[(String, String)]| {
        Guard::new(&Options {
            address: "0.0.0.0:0".parse().unwrap(),
            token: Some(TOKEN.into()),
            clients: clients.to_vec(),
            ..Options::default()
        })
    };
    let guard = new(&[pair("anna", &anna), pair("ben", ben)]).unwrap();
    let asked = |token: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("host", "127.0.0.1".parse().unwrap());
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        guard.check(&Method::GET, &"/".parse().unwrap(), &headers).ok()
    };
    assert_eq!(asked(&anna), Some(Client::named("anna")));
    assert_eq!(asked(ben), Some(Client::named("ben")));
    assert_eq!(asked(TOKEN), Some(Client::default()));
    assert_eq!(asked("0123456789abcdef0123"), None);
    for (clients, says) in [
        (vec![pair("a/b", ben)], "a/b"),
        (vec![pair("inputs", ben)], "inputs"),
        (vec![pair("anna", &anna), pair("anna", ben)], "anna"),
        (vec![pair("anna", ben), pair("ben", ben)], "same token"),
        (vec![pair("anna", TOKEN)], "same token"),
        (vec![pair("anna", "short")], "16"),
    ] {
        let error = new(&clients).err().unwrap().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn others_reach_the_server_only_with_a_token() {
    let new = |address: &str, token: Option<&str>| {
        let token = token.map(String::from);
        Guard::new(&Options { address: address.parse().unwrap(), token, ..Options::default() })
            .err()
    };
    for address in ["127.0.0.1:0", "127.9.9.9:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
        assert!(new(address, None).is_none(), "{address}");
    }
    for address in ["0.0.0.0:0", "192.168.1.2:7860", "[::]:0", "[fe80::1]:0"] {
        let said = new(address, None).unwrap().to_string();
        assert!(said.contains("--token"), "{said}");
        assert!(new(address, Some(TOKEN)).is_none());
    }
    for short in ["", "short", "0123456789abcde", "0123456789 abcdef"] {
        let said = new("127.0.0.1:0", Some(short)).unwrap().to_string();
        assert!(said.contains("16"), "{said}");
    }
    for wrong in ["*", "localhost:3000", "http://a/b", "ftp://a", "http://"] {
        let options = Options { origins: vec![wrong.into()], ..Options::default() };
        assert!(Guard::new(&options).is_err(), "{wrong}");
    }
}
