//! The rest of a bundle in every shape that a server may give it, and the requests byte by byte.

use super::*;
use crate::http::ResponseReader;
use crate::payload::EstUrl;

fn url(text: &str) -> HttpsUrl {
    match EstUrl::try_from(text).unwrap() {
        EstUrl::Https(url) => url.for_bundles(),
        EstUrl::Line => panic!("{text}"),
    }
}

fn server() -> HttpsUrl {
    url("https://conf.example:8443/.well-known/est")
}

/// What had come of an answer with this head, when it broke off after this body.
fn broken(head: &str, body: &[u8]) -> (Response, usize) {
    let mut reader = ResponseReader::up_to(MAX_SEALED);
    assert_eq!(reader.push(head.as_bytes()).unwrap(), None);
    assert_eq!(reader.push(body).unwrap(), None);
    reader.beginning().unwrap()
}

fn whole(head: &str, body: &[u8]) -> Response {
    let mut reader = ResponseReader::up_to(MAX_SEALED);
    reader.push(&[head.as_bytes(), body].concat()).unwrap().unwrap()
}

/// The first four of ten bytes.
fn part() -> Part {
    let (beginning, total) = broken("HTTP/1.1 200 OK\r\nETag: \"7-00\"\r\nContent-Length: 10\r\n\r\n", b"0123");
    Part::grown(None, &server(), beginning, total).unwrap()
}

#[test]
fn a_transfer_that_breaks_twice_is_whole_in_the_end() {
    let head = "HTTP/1.1 206 x\r\nETag: \"7-00\"\r\nContent-Length: 6\r\nContent-Range: bytes 4-9/10\r\n\r\n";
    let (beginning, length) = broken(head, b"45");
    let part = Part::grown(Some(part()), &server(), beginning, length).unwrap();
    assert_eq!(part.bytes, b"012345");
    let head = "HTTP/1.1 206 x\r\nETag: \"7-00\"\r\nContent-Length: 4\r\nContent-Range: bytes 6-9/10\r\n\r\n";
    assert_eq!(part.whole(&whole(head, b"6789")).unwrap(), b"0123456789");
}

/// Attack: a server, or a proxy, that puts the halves of two bundles together.
#[test]
fn a_rest_that_does_not_fit_is_refused() {
    let head =
        |status: u16, etag: &str, range: &str| format!("HTTP/1.1 {status} x\r\n{etag}{range}Content-Length: 6\r\n\r\n");
    let (etag, range) = ("ETag: \"7-00\"\r\n", "Content-Range: bytes 4-9/10\r\n");
    assert_eq!(part().whole(&whole(&head(206, etag, range), b"456789")).unwrap(), b"0123456789", "the premise");
    for (status, etag, range, got) in [
        (206, "ETag: \"8-00\"\r\n", range, "bytes 4-9/10 (6 bytes, ETag \"8-00\", status 206)"),
        (206, "", range, "bytes 4-9/10 (6 bytes, ETag none, status 206)"),
        (206, etag, "", "none (6 bytes, ETag \"7-00\", status 206)"),
        (206, etag, "Content-Range: bytes 3-8/10\r\n", "bytes 3-8/10 (6 bytes, ETag \"7-00\", status 206)"),
        (206, etag, "Content-Range: bytes 4-9/11\r\n", "bytes 4-9/11 (6 bytes, ETag \"7-00\", status 206)"),
        (206, etag, "Content-Range: bytes 4-9/*\r\n", "bytes 4-9/* (6 bytes, ETag \"7-00\", status 206)"),
        (416, etag, "Content-Range: bytes */3\r\n", "bytes */3 (6 bytes, ETag \"7-00\", status 416)"),
    ] {
        let error = part().whole(&whole(&head(status, etag, range), b"456789")).unwrap_err();
        let want = format!(
            "the rest was asked for, bytes 4-9/10 (ETag \"7-00\"), and {got} came; the server, or a proxy before \
             it, gives wrong ranges"
        );
        assert_eq!(error.to_string(), want);
    }
    let short = "HTTP/1.1 206 x\r\nETag: \"7-00\"\r\nContent-Length: 5\r\nContent-Range: bytes 4-9/10\r\n\r\n";
    assert!(matches!(part().whole(&whole(short, b"45678")), Err(ServerError::Range { .. })));
}

/// Bytes that cannot be told from those of another version are fetched again.
#[test]
fn only_a_version_that_has_a_name_is_resumed() {
    for etag in ["", "ETag: W/\"7-00\"\r\n", "ETag: 7-00\r\n", "ETag: \"7\"00\"\r\n", "ETag: \"7 00\"\r\n"] {
        let (beginning, total) = broken(&format!("HTTP/1.1 200 OK\r\n{etag}Content-Length: 10\r\n\r\n"), b"0123");
        assert!(Part::grown(None, &server(), beginning, total).is_none(), "{etag}");
    }
    let (beginning, total) = broken("HTTP/1.1 200 OK\r\nETag: \"7-00\"\r\nContent-Length: 10\r\n\r\n", b"");
    assert!(Part::grown(None, &server(), beginning, total).is_none());
    // A broken answer of another kind takes nothing away, and neither does a rest that does not fit.
    let (beginning, length) = broken("HTTP/1.1 500 x\r\nContent-Length: 10\r\n\r\n", b"0");
    assert_eq!(Part::grown(Some(part()), &server(), beginning, length).unwrap().bytes, b"0123");
    let head = "HTTP/1.1 206 x\r\nETag: \"7-00\"\r\nContent-Length: 7\r\nContent-Range: bytes 3-9/10\r\n\r\n";
    let (beginning, length) = broken(head, b"34");
    assert_eq!(Part::grown(Some(part()), &server(), beginning, length).unwrap().bytes, b"0123");
}

fn site() -> Site {
    Site { url: server(), failed: None, over: false, not_before: None, resumes: true, brings: None }
}

/// Attack: a first server that brings 600 bytes a second keeps the node from a second one for days.
#[test]
fn a_slow_server_is_left_for_one_that_may_be_faster() {
    let mut room = |_: u64| Ok(tempfile::tempfile().unwrap());
    let head = "HTTP/1.1 200 OK\r\nETag: \"7-00\"\r\nContent-Length: 10\r\n\r\n";
    let (head, total) = (broken(head, b"x").0, 200_000_000);
    // What comes in the first span, and what the others may bring in theirs: whether the server is left.
    let mut is_left = |came: usize, others: usize, total: usize| {
        let mut image = Image::new([7; 32], &mut room);
        image.expect(others);
        image.take(&server(), &head, total, &vec![0; came]).unwrap();
        assert!(image.trouble().is_none(), "not before the span is over");
        image.began(image::SPAN);
        let stopped = image.take(&server(), &head, total - came, &[]).is_err();
        let trouble = image.trouble();
        assert_eq!(stopped, trouble.is_some());
        assert!(trouble.is_none_or(|error| matches!(error, ServerError::Slow { came: said, .. } if said == came)));
        stopped
    };
    let slow = 600 * 30;
    assert!(is_left(slow, usize::MAX, total), "the premise");
    // The only one, or the others have failed.
    assert!(!is_left(slow, 0, total));
    // The others were not much faster: a slow link must not have the image begin anew for ever.
    assert!(!is_left(slow, 2 * slow, total) && is_left(slow, 2 * slow + 2, total));
    // Fast enough; and what is left would come in the same time.
    assert!(!is_left(2 * 1024 * 1024, usize::MAX, total) && !is_left(slow, usize::MAX, 2 * slow));

    let others = |brings: &[(Option<usize>, bool)]| {
        best(
            brings
                .iter()
                .map(|(brings, over)| Site { brings: *brings, over: *over, ..site() })
                .collect::<Vec<_>>()
                .iter(),
        )
    };
    assert_eq!(others(&[]), 0);
    assert_eq!(others(&[(Some(7), false), (None, false)]), usize::MAX, "one that was not asked yet may be faster");
    assert_eq!(others(&[(Some(7), false), (Some(0), false), (None, true)]), 7);
}

/// Attack: a slow first server uses up the time of all.
#[test]
fn a_slow_server_leaves_the_others_their_time() {
    let site = |over| Site { over, ..site() };
    let hour = Duration::from_secs(3600);
    let deadline = Deadline::after(hour);
    let sites = [site(false), site(true), site(false), site(false)];
    assert!(share(deadline, &sites, 0) <= hour / 3);
    // Those behind the turn have been asked in this round.
    assert!(share(deadline, &sites, 2) > hour / 3 * 2 && share(deadline, &sites, 3) > hour / 3 * 2);
    assert!(share(deadline, &sites, 1) <= hour / 2);
}

/// The pieces of a body that is handed on are the body, however the bytes come, and what is behind them is not.
#[test]
fn a_body_that_is_handed_on_comes_whole_and_once() {
    let body: Vec<u8> = (0..1000_u32).map(|n| (n % 251) as u8).collect();
    let bytes = [&b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"[..], &body, b"behind"].concat();
    for size in [1, 2, 7, 40, 64, 999, 5000] {
        let (mut reader, mut came) = (ResponseReader::default().handing_on(), Vec::new());
        for piece in bytes.chunks(size) {
            if let Some(whole) = reader.push(piece).unwrap() {
                came.extend(whole.body);
                break;
            }
            if let Some((head, left, piece)) = reader.piece() {
                assert_eq!((head.status, left), (200, 1000 - came.len()));
                came.extend_from_slice(piece);
                reader.forget();
                assert_eq!(reader.so_far(), Some((came.len(), 1000)));
            }
        }
        assert_eq!(came, body, "{size}");
        assert!(b"behind".starts_with(reader.behind()));
    }
    // One that breaks off says how much of all has come.
    let mut reader = ResponseReader::default().handing_on();
    assert_eq!(reader.push(&bytes[..600]).unwrap(), None);
    let came = reader.piece().unwrap().2.len();
    reader.forget();
    assert_eq!(reader.push(&bytes[600..700]).unwrap(), None);
    let truncated = crate::http::HttpError::Truncated { have: came + 100, want: Some(1000) };
    assert_eq!(reader.end().unwrap_err(), truncated);
    // What is no success is kept, and may not be long.
    let mut reader = ResponseReader::default().handing_on();
    let page = b"HTTP/1.1 404 x\r\nContent-Length: 4\r\n\r\nx";
    assert!(reader.push(page).unwrap().is_none() && reader.piece().is_none());
}
