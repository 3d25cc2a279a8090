//! Tests of an administrator who has to revoke on a full disk. They use a small file system in a mount namespace, so they
//! need root.

use crate::support::books;

use std::process::{Command, Stdio};

use books::{Books, HOME, issued, key, waits};

/// node1 has a certificate that was used, and another key waits.
fn books() -> Books {
    let books = Books::new("once");
    let token = books.token("node1", false);
    assert!(!books.show(&issued(books.first(&token, &key(), HOME)), HOME));
    assert!(waits(&books.first(&token, &key(), HOME)));
    books
}

/// What is said between two marks.
fn part<'t>(text: &'t str, mark: &str) -> &'t str {
    let rest = text.split_once(&format!("== {mark}\n")).unwrap_or_else(|| panic!("{mark}\n{text}")).1;
    rest.split("== ").next().unwrap()
}

/// Strangers, or another program, have filled the disk: `revoke` was refused then, and so was everybody. With a server that
/// runs, whose files are there already, and without one, so that SQLite has to make its own.
#[test]
fn revoke_deny_and_log_work_on_a_full_disk() {
    for server in [true, false] {
        let work = tempfile::tempdir().unwrap();
        let (books, disk) = (books(), work.path().join("disk"));
        let state = books.dir.path().join("state");
        // Nothing of it is in the write-ahead log any more.
        drop(books.state);
        std::fs::create_dir(&disk).unwrap();
        // The first filler leaves what the reserve holds; `dd` ends when there is no room.
        let script = r#"
            mount -t tmpfs -o size=6m,mode=0700 none "$DISK"
            cp -a "$STATE" "$DISK/state"
            host() { "$HOST" --dir "$DISK/state" "$@" 2>&1 || echo "failed $?"; }
            if [ "$SERVER" = true ]; then
                "$HOST" --dir "$DISK/state" serve --listen 127.0.0.1:0 > "$WORK/log" 2>&1 & serve=$!
                trap 'kill $serve; wait $serve || true' EXIT
                until grep -q ' EST on ' "$WORK/log"; do kill -0 $serve; done
                port=$(sed -n 's/.* EST on 127.0.0.1:\([0-9]*\),.*/\1/p' "$WORK/log")
                # The server has something to do meanwhile, and looks each time whether there is room.
                poll() {
                    while exec 3<> /dev/tcp/127.0.0.1/$port; do
                        printf 'GET /crl/00.crl HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' >&3
                        cat <&3 >> "$WORK/polled"
                        exec 3>&-
                    done
                }
                poll > /dev/null 2>&1 & poller=$!
                trap 'kill $poller $serve; wait $serve || true' EXIT
            fi
            dd if=/dev/zero of="$DISK/filler" bs=4096 2> "$WORK/dd" || true
            echo "== room"; df --output=avail -k "$DISK" | tail -1
            echo "== payload"; host payload node1 -o "$WORK/payload"
            echo "== nodes"; host nodes
            echo "== deny"; host deny node1
            echo "== revoke"; host revoke node1 --reason keyCompromise
            echo "== list"
            if [ "$SERVER" = true ]; then
                port=$(sed -n 's/.* EST on 127.0.0.1:\([0-9]*\),.*/\1/p' "$WORK/log")
                id=$(basename "$DISK"/state/intermediates/*.pem .pem)
                curl -sS "http://127.0.0.1:$port/crl/$id.crl" | openssl crl -inform DER -noout -text
            fi
            echo "== log"; host log --last 3
            echo "== listed"; host nodes --json
            echo "== reserve"; stat -c %s "$DISK/state/reserve"
            [ "$SERVER" = false ] || grep -c '^HTTP/1.1 404 ' "$WORK/polled" | sed 's/^/== polled\n/'
            rm "$DISK/filler"
            echo "== again"; host payload node1 -o "$WORK/payload"
            echo "== end"
        "#;
        let output = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "bash", "-euc", script])
            .env("HOST", env!("CARGO_BIN_EXE_imprint-host"))
            .env("STATE", &state)
            .env("DISK", &disk)
            .env("WORK", work.path())
            .env("SERVER", server.to_string())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(part(&said, "room").trim(), "0", "the attack: there is no room\n{said}");
        if server {
            assert_ne!(part(&said, "polled").trim(), "0", "{said}");
            assert!(part(&said, "payload").contains("database or disk is full"), "{said}");
        }
        assert!(part(&said, "nodes").contains("node1 waits for approval: key "), "{said}");
        assert!(part(&said, "deny").starts_with("denied node1 key "), "{said}");
        assert!(part(&said, "revoke").starts_with("revoked certificates of node1: key "), "{said}");
        assert_eq!(part(&said, "list").contains("Key Compromise"), server, "{said}");
        let log = part(&said, "log");
        assert!(log.contains(" denied   node1 by ") && log.contains(" revoked  node1 by "), "{said}");
        assert!(part(&said, "listed").contains("\"status\":\"revoked\""), "{said}");
        let left: u64 = part(&said, "reserve").trim().parse().unwrap();
        assert!(left >= imprint_host::room::BYTES / 2, "most of it is left for the next decision: {left}");
        assert!(part(&said, "again").starts_with("wrote "), "{said}");
    }
}
