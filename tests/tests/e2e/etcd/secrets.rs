//! Certificates and passwords: what is right works, what is wrong is told in one line.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;
use vswitch_cluster::etcd::client::{Access, Client};
use vswitch_cluster::etcd::feed::{Feed, Update};
use vswitch_cluster::etcd::tls;
use vswitch_cluster::etcd::watch::{Create, News};
use vswitch_cluster::etcd::wire::{Change, KeyRange, LeaseId};
use vswitch_tests::etcd::{Authority, Etcd};
use vswitch_tests::namespace::Namespace;

use super::{Folder, access, run};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn everything() -> KeyRange {
    KeyRange::prefix("/vswitch/")
}

fn watched() -> [Create; 1] {
    [Create { id: 1, range: everything(), from: 1 }]
}

fn with_tls(ca: PathBuf, identity: Option<(PathBuf, PathBuf)>) -> Access {
    let tls = Some(tls::Files { ca, identity });
    Access { tls, ..access("etcds://127.0.0.1") }
}

async fn refusal(access: &Access) -> String {
    const TRIES: usize = 50;
    for _ in 0..TRIES {
        let refusal = Client::new(access).expect("a client").read(&everything()).await.expect_err("refused");
        // A reset may overtake etcd's last words; then the next try tells.
        if !refusal.is_passing() {
            return refusal.to_string();
        }
    }
    panic!("it may pass, {TRIES} times");
}

#[test]
fn tls_lets_in_whom_the_authority_knows() {
    let host = Namespace::new();
    let authority = Authority::new();
    let etcd = Etcd::start_secure(&host, "127.0.0.1", &authority);
    let (ours, other) = (authority.sign("host", "DNS:host"), Authority::new());
    run(&host, async || {
        let right = with_tls(authority.certificate(), Some(ours.clone()));
        let client = Client::new(&right).expect("a client");
        let change = Change::Put { key: "/vswitch/x".to_owned(), value: b"x".to_vec(), lease: None };
        client.commit(&[], &[change]).await.expect("let in");
        let mut watch = client.watch(&watched()).await.expect("watched");
        assert!(matches!(watch.next().await, Ok(News::Created(1, _))));
        let news = watch.next().await.expect("an event");
        let News::Changes(1, events, _) = news else { panic!("{news:?}") };
        assert_eq!(events[0].kv.key, "/vswitch/x");

        let start = "TLS with etcd on 127.0.0.1:2379 fails: ";
        let cases = [
            (
                with_tls(other.certificate(), Some(ours)),
                "its certificate was signed by another authority than that of --cluster-ca",
            ),
            (with_tls(authority.certificate(), None), "it wants a certificate of ours"),
            (
                with_tls(authority.certificate(), Some(other.sign("host", "DNS:host"))),
                "it wants a certificate of ours",
            ),
        ];
        for (access, expected) in cases {
            let line = refusal(&access).await;
            assert!(line.starts_with(&format!("{start}{expected}")), "{line}");
        }
        let plain = Client::new(&access("etcd://127.0.0.1")).expect("a client").read(&everything()).await;
        let line = plain.expect_err("it wants TLS").to_string();
        assert!(line.contains("if it wants TLS, give --cluster-ca FILE"), "{line}");
    });
    drop(etcd);
    let named = Etcd::start(&host, "127.0.0.1");
    run(&host, async || {
        let line = refusal(&with_tls(authority.certificate(), None)).await;
        assert_eq!(
            line,
            "TLS with etcd on 127.0.0.1:2379 fails: it does not speak TLS: leave out --cluster-ca and write etcd://"
        );
    });
    drop(named);
}

#[test]
fn files_that_are_wrong_are_named() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let (ca, one, two) =
        (authority.certificate(), authority.sign("a", "DNS:a"), authority.sign("b", "DNS:b"));
    let (missing, text) = (folder.0.join("missing"), folder.file("text", "hello\n"));
    let line = |access: &Access| Client::new(access).expect_err("refused");
    assert_eq!(
        line(&access("etcds://a")),
        "etcds:// needs --cluster-ca FILE, with the certificate of etcd's authority"
    );
    for (access, expected) in [
        (with_tls(missing.clone(), None), "--cluster-ca"),
        (with_tls(text.clone(), None), "--cluster-ca"),
        (with_tls(ca.clone(), Some((text.clone(), one.1.clone()))), "--cluster-cert"),
        (with_tls(ca.clone(), Some((one.0.clone(), text))), "--cluster-key"),
        (with_tls(ca, Some((one.0, two.1))), "--cluster-cert"),
        (Access { user: Some(("u".to_owned(), missing)), ..access("etcd://a") }, "--cluster-password-file"),
        (
            Access { user: Some(("u".to_owned(), folder.file("empty", "\n"))), ..access("etcd://a") },
            "--cluster-password-file",
        ),
    ] {
        let line = line(&access);
        assert!(line.starts_with(expected) && !line.contains('\n'), "{line}");
    }
}

/// Has an etcd ask for users: "switch" may do what a switch does, "guest" nothing.
fn wants_users(etcd: &Etcd) {
    for (path, body) in [
        ("user/add", json!({ "name": "root", "password": "r" })),
        ("user/grant", json!({ "user": "root", "role": "root" })),
        ("role/add", json!({ "name": "switches" })),
        // "/vswitch/" to "/vswitch0"
        (
            "role/grant",
            json!({ "name": "switches", "perm":
            { "permType": "READWRITE", "key": "L3Zzd2l0Y2gv", "range_end": "L3Zzd2l0Y2gw" } }),
        ),
        ("user/add", json!({ "name": "switch", "password": "s" })),
        ("user/grant", json!({ "user": "switch", "role": "switches" })),
        ("user/add", json!({ "name": "guest", "password": "g" })),
        ("enable", json!({})),
    ] {
        let answer = etcd.ask(&format!("/v3/auth/{path}"), &body);
        assert!(answer.get("error").is_none(), "{path}: {answer}");
    }
}

fn user(folder: &Folder, name: &str, password: &str) -> Access {
    let file = folder.file(&format!("{name}-{password}"), &format!("{password}\n"));
    Access { user: Some((name.to_owned(), file)), ..access("etcd://127.0.0.1") }
}

#[test]
fn a_token_that_ends_under_a_stream_is_exchanged() {
    /// The time that a token is good for, where nobody uses it.
    const TOKEN: Duration = Duration::from_secs(2);
    let (host, folder) = (Namespace::new(), Folder::new());
    let etcd = Etcd::start_with(&host, "127.0.0.1", &["--auth-token-ttl", &TOKEN.as_secs().to_string()]);
    wants_users(&etcd);
    run(&host, async || {
        let client = Client::new(&user(&folder, "switch", "s")).expect("a client");
        let mut feed = Feed::start(client.clone(), [KeyRange::prefix("/vswitch/a/")]);
        assert!(matches!(feed.next().await, Update::Page(_)));
        // Nothing is asked for until the token has ended, and younger ones have; then one more range is.
        let who = json!({ "name": "switch", "password": "s" });
        let token =
            || etcd.ask("/v3/auth/authenticate", &who)["token"].as_str().unwrap_or_default().to_owned();
        // Each look gives a token its whole time again, so each is at another one.
        let tokens: [String; 8] = std::array::from_fn(|_| token());
        let mut looks = tokens.iter();
        let is_good = |token: &String| {
            let key = json!({ "key": "L3Zzd2l0Y2gv" });
            etcd.ask_as("/v3/kv/range", &key, token).get("error").is_none()
        };
        while is_good(looks.next().expect("a token ends")) {
            tokio::time::sleep(TOKEN).await;
        }
        let other = Client::new(&user(&folder, "switch", "s")).expect("a client");
        let put = |key: &str| Change::Put { key: key.to_owned(), value: b"x".to_vec(), lease: None };
        other.commit(&[], &[put("/vswitch/b/1")]).await.expect("let in");
        feed.follow(KeyRange::prefix("/vswitch/b/"));
        let heard = timeout(LONG, feed.next()).await.expect("in time");
        assert!(matches!(&heard, Update::Page(page) if page.found.len() == 1), "{heard:?}");
        for key in ["/vswitch/b/2", "/vswitch/a/1"] {
            other.commit(&[], &[put(key)]).await.expect("let in");
            let heard = timeout(LONG, feed.next()).await.expect("in time");
            assert!(matches!(&heard, Update::Changes(changes) if changes[0].kv.key == key), "{heard:?}");
        }
    });
}

#[test]
fn a_password_opens_and_a_wrong_one_is_told() {
    let (host, folder) = (Namespace::new(), Folder::new());
    let mut etcd = Etcd::start(&host, "127.0.0.1");
    wants_users(&etcd);
    let user = |name: &str, password: &str| user(&folder, name, password);
    run(&host, async || {
        let client = Client::new(&user("switch", "s")).expect("a client");
        client.read(&everything()).await.expect("let in");
        client.watch(&watched()).await.expect("let in");
        let lease = LeaseId(7);
        client.grant(lease, 60).await.expect("lease");
        let change = Change::Put { key: "/vswitch/x".to_owned(), value: vec![], lease: Some(lease) };
        client.commit(&[], std::slice::from_ref(&change)).await.expect("let in");

        let start = "etcd on 127.0.0.1:2379 ";
        for (access, expected) in [
            (
                user("switch", "x"),
                "does not let us in: the password of \"switch\" is another one, or there is no such user",
            ),
            (
                user("nobody", "x"),
                "does not let us in: the password of \"nobody\" is another one, or there is no such user",
            ),
            (
                access("etcd://127.0.0.1"),
                "does not let us in: give it --cluster-user and --cluster-password-file",
            ),
            (user("guest", "g"), "denies \"guest\" what is needed"),
        ] {
            let line = refusal(&access).await;
            assert!(line.starts_with(&format!("{start}{expected}")), "{line}");
        }

        // It forgets whom it let in.
        etcd.stop();
        etcd.start_again();
        client.commit(&[], &[change]).await.expect("let in again");
        client.watch(&watched()).await.expect("let in again");
    });
}
