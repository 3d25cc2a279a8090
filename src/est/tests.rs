//! Requests byte by byte, answers in every shape that peers send, and random bytes.

use proptest::prelude::*;

use super::*;
use crate::http::{HttpError, MAX_BODY, MAX_HEAD, ResponseReader};

fn answer(parts: &[&[u8]]) -> Result<Response, HttpError> {
    let mut reader = ResponseReader::default();
    for part in parts {
        if let Some(response) = reader.push(part)? {
            return Ok(response);
        }
    }
    reader.end()
}

fn body(parts: &[&[u8]]) -> Vec<u8> {
    answer(parts).unwrap().body
}

/// A certs-only message (RFC 5652 §5) around these elements, which need not be certificates.
fn message(elements: &[&[u8]]) -> Vec<u8> {
    let tlv = |tag: u8, value: &[u8]| {
        let mut out = vec![tag, 0x82, (value.len() >> 8) as u8, value.len() as u8];
        // DER: the length takes as few bytes as possible.
        if value.len() < 0x80 {
            out = vec![tag, value.len() as u8];
        } else if value.len() < 0x100 {
            out = vec![tag, 0x81, value.len() as u8];
        }
        out.extend_from_slice(value);
        out
    };
    let data = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
    let mut signed = vec![2, 1, 1, 0x31, 0];
    signed.extend(tlv(0x30, &data));
    signed.extend(tlv(0xa0, &elements.concat()));
    signed.extend([0x31, 0]);
    let mut info = vec![6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
    info.extend(tlv(0xa0, &tlv(0x30, &signed)));
    tlv(0x30, &info)
}

const ONE: &[u8] = &[0x30, 3, 2, 1, 1];
const TWO: &[u8] = &[0x30, 3, 2, 1, 2];

/// If this test fails, do not change it lightly: servers read these bytes.
#[test]
fn requests() {
    let get = ca_certs(&Address {
        authority: "est.example:8443".to_owned(),
        path: "/.well-known/est",
        user_agent: "imprint/0.1 (config drive)\r\nX: y",
    });
    assert_eq!(
        std::str::from_utf8(get.as_bytes()).unwrap(),
        "GET /.well-known/est/cacerts HTTP/1.1\r\nHost: est.example:8443\r\nUser-Agent: imprint/0.1 (config \
         drive)X: y\r\nAccept: application/pkcs7-mime\r\n\r\n"
    );
    let name = NodeName::try_from("node1").unwrap();
    let token = Token::try_from("s3cret".to_owned()).unwrap();
    let basic = Basic { name: &name, token: &token };
    let post = |lines| {
        let authority = "[::1]:8443".to_owned();
        let to = Address { authority, path: "/.well-known/est/x", user_agent: "imprint" };
        request(Operation::SimpleEnroll(&[0; 49]), lines, &to, Some(&basic))
    };
    // printf node1:s3cret | base64
    assert_eq!(
        std::str::from_utf8(post(Lines::Of64).expose()).unwrap(),
        format!(
            "POST /.well-known/est/x/simpleenroll HTTP/1.1\r\nHost: [::1]:8443\r\nUser-Agent: imprint\r\nAccept: \
             application/pkcs7-mime\r\nConnection: close\r\nAuthorization: Basic bm9kZTE6czNjcmV0\r\nContent-Type: \
             application/pkcs10\r\nContent-Transfer-Encoding: base64\r\nContent-Length: 70\r\n\r\n{}\nAA==\n",
            "A".repeat(64)
        )
    );
    let one_line = format!("\r\nContent-Length: 68\r\n\r\n{}AA==", "A".repeat(64));
    assert!(std::str::from_utf8(post(Lines::One).expose()).unwrap().ends_with(&one_line));
}

/// RFC 7030 §4.2.2: the certificate says who asks.
#[test]
fn a_renewal_carries_no_credentials() {
    let to = Address { authority: "est.example".to_owned(), path: "/.well-known/est", user_agent: "imprint" };
    let post = request(Operation::SimpleReenroll(&[0; 3]), Lines::Of64, &to, None);
    let post = std::str::from_utf8(post.expose()).unwrap();
    assert!(post.starts_with("POST /.well-known/est/simplereenroll HTTP/1.1\r\n"), "{post}");
    assert!(post.ends_with("Content-Length: 5\r\n\r\nAAAA\n") && !post.contains("Authorization"), "{post}");
}

#[test]
fn answers_framed_in_every_way() {
    assert_eq!(body(&[b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc\r\n"]), b"abc");
    assert_eq!(body(&[b"HTTP/1.0 200 OK\r\n\r\na", b"bc"]), b"abc");
    assert_eq!(body(&[b"HTTP/1.1 200\r\ncontent-length:3\r\ncontent-length: 3\r\n\r\nabc"]), b"abc");
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nX-A: b\r\n\r\n";
    assert_eq!(body(&[chunked]), b"abc");
    let bytewise: Vec<&[u8]> = chunked.chunks(1).collect();
    assert_eq!(body(&bytewise), b"abc");
    assert_eq!(body(&[b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"]), b"a");
    assert_eq!(answer(&[b"HTTP/1.1 202 Accepted\r\n\r\n"]).unwrap().status, 202);
    assert_eq!(answer(&[b"HTTP/1.1 204 No Content\r\n\r\n"]).unwrap().body, b"");
}

/// RFC 9112 §9.3: when a second request may follow. Wherever the end of an answer is in doubt, none may.
#[test]
fn connections_that_may_carry_another_request() {
    for (head, want) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", true),
        ("HTTP/1.1 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n", true),
        ("HTTP/1.1 401 No\r\nContent-Length: 0\r\n", true),
        ("HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n", true),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n", false),
        ("HTTP/1.1 200 OK\r\nConnection: x , CLOSE\r\nContent-Length: 0\r\n", false),
        ("HTTP/1.1 200 OK\r\nConnection: x\r\nConnection: close\r\nContent-Length: 0\r\n", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n", false),
        ("HTTP/1.1 200 OK\r\n", false),
        ("HTTP/1.1 202 Accepted\r\n", false),
        ("HTTP/1.1 204 No Content\r\n", false),
        ("HTTP/1.1 101 Switching Protocols\r\nContent-Length: 0\r\n", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n", false),
    ] {
        assert_eq!(answer(&[head.as_bytes(), b"\r\n"]).unwrap().persistent, want, "{head}");
    }
    let chunked = |head: &str| answer(&[head.as_bytes(), b"\r\n0\r\n\r\n"]).unwrap().persistent;
    assert!(chunked("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"));
    assert!(!chunked("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n"));
}

#[test]
fn what_comes_behind_an_answer_is_told_apart_from_it() {
    for whole in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-A: b\r\n\r\n",
    ] {
        for behind in [&b""[..], b"\r\n", b"HTTP/1.1 200 OK\r\n\r\n"] {
            let bytes = [whole, behind].concat();
            // In two pieces, cut anywhere. Only bytes of the second piece can come behind the answer.
            for cut in 0..=whole.len() {
                let mut reader = ResponseReader::default();
                let first = reader.push(&bytes[..cut]).unwrap();
                let response = if cut < whole.len() { reader.push(&bytes[cut..]).unwrap() } else { first };
                assert_eq!(response.unwrap().body, b"abc");
                assert_eq!(reader.behind(), if cut < whole.len() { behind } else { b"" });
            }
        }
    }
}

#[test]
fn answers_that_are_none() {
    let error = |bytes: &[u8]| answer(&[bytes]).unwrap_err();
    assert_eq!(error(b""), HttpError::Truncated { have: 0, want: None });
    assert_eq!(
        error(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
        HttpError::Truncated { have: 3, want: Some(9) }
    );
    assert_eq!(
        error(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab"),
        HttpError::Truncated { have: 0, want: None }
    );
    assert_eq!(error(b"SSH-2.0-OpenSSH_9.2\r\n"), HttpError::NotHttp("no status line"));
    assert_eq!(error(b"HTTP/1.1 200 OK\r\nA b: c\r\n\r\n"), HttpError::NotHttp("a malformed header field"));
    assert_eq!(
        error(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        HttpError::Framing("Content-Length 1 and 2".into())
    );
    assert_eq!(error(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), HttpError::Framing("Content-Length -1".into()));
    assert_eq!(
        error(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"),
        HttpError::Framing("Transfer-Encoding gzip".into())
    );
    assert_eq!(
        error(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc"),
        HttpError::Framing("a chunk that is not 1 bytes long".into())
    );
    assert_eq!(error(b"HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n"), HttpError::BodyTooLong(MAX_BODY));
    let endless = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &[b'a'; MAX_BODY + 1]].concat();
    assert_eq!(error(&endless), HttpError::BodyTooLong(MAX_BODY));
    let huge = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n";
    assert_eq!(error(huge), HttpError::BodyTooLong(MAX_BODY));
    let fields = [b"HTTP/1.1 200 OK\r\nA: ".as_slice(), &[b'a'; MAX_HEAD]].concat();
    assert_eq!(error(&fields), HttpError::HeadTooLong);
    assert_eq!(error(&[b"HTTP/1.1 200 OK\r\n".as_slice(), &b"A: b\r\n".repeat(65)].concat()), HttpError::TooManyFields);
    let most = [b"HTTP/1.1 200 OK\r\n".as_slice(), &b"A: b\r\n".repeat(63), b"Content-Length: 0\r\n\r\n"].concat();
    assert_eq!(answer(&[&most]).unwrap().status, 200);
}

#[test]
fn certificates_in_every_encoding() {
    let der = message(&[TWO, ONE]);
    let dense = Base64::encode_string(&der);
    // 76-column CRLF is what MIME libraries write.
    let mime = dense.as_bytes().chunks(20).map(|line| [line, b"\r\n"].concat()).collect::<Vec<_>>().concat();
    let bodies = [
        der.clone(),
        wrapped(&der).into_bytes(),
        mime,
        dense.clone().into_bytes(),
        [b"\r\n", dense.trim_end_matches('=').as_bytes()].concat(),
    ];
    for body in bodies {
        assert_eq!(certs_only(&body).unwrap(), [TWO, ONE], "in the order in which they stand");
    }
    // A certificate that stands there twice, and an attribute certificate, [2].
    assert_eq!(certs_only(&message(&[ONE, ONE, &[0xa2, 0]])).unwrap(), [ONE, ONE]);
}

/// Servers built around openssl's commands send certificates like this. The first element of a certificate is a
/// SEQUENCE.
#[test]
fn certificates_without_a_message_around_them() {
    let certificate = [&[0x30, ONE.len() as u8][..], ONE].concat();
    let pem = |label: &str| crate::pem::encode(label, &certificate).as_str().to_owned();
    for body in [certificate.clone(), wrapped(&certificate).into_bytes(), pem("CERTIFICATE").into_bytes()] {
        assert_eq!(certs_only(&body).unwrap(), std::slice::from_ref(&certificate));
    }
    let several = format!("subject=CN = x\n{}\nsubject=CN = y\n{}", pem("CERTIFICATE"), pem("X509 CERTIFICATE"));
    assert_eq!(certs_only(several.as_bytes()).unwrap(), [certificate.clone(), certificate.clone()]);
    let cut = pem("CERTIFICATE") + "-----BEGIN CERTIFICATE-----\nMAMC";
    assert_eq!(certs_only(cut.as_bytes()), Err(EstError::NotBase64));
}

/// Bouncy Castle's CMSSignedData.getEncoded() has indefinite lengths down to the certificates.
#[test]
fn certificates_in_a_message_of_indefinite_length() {
    let open = |tag: u8, value: &[u8]| [&[tag, 0x80], value, &[0, 0]].concat();
    let data = open(0x30, &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1]);
    let set = open(0xa0, &[ONE, TWO].concat());
    let signed = open(0x30, &[&[2, 1, 1, 0x31, 0], data.as_slice(), &set, &[0x31, 0]].concat());
    let id = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
    let whole = open(0x30, &[id.as_slice(), &open(0xa0, &signed)].concat());
    assert_eq!(certs_only(&whole).unwrap(), [ONE, TWO]);
    assert_eq!(certs_only(wrapped(&whole).as_bytes()).unwrap(), [ONE, TWO]);
    for length in 1..whole.len() {
        assert!(matches!(certs_only(&whole[..length]), Err(EstError::NotCertsOnly(_))), "{length}");
    }
    // A message that is nested deeper than any real one is refused early.
    assert!(matches!(certs_only(&[0x30, 0x80].repeat(10_000)), Err(EstError::NotCertsOnly(_))));
}

#[test]
fn schemes_that_a_server_offers() {
    let schemes = |fields: &[&str]| {
        let challenges = fields.iter().map(|field| Printable::of(field)).collect();
        Response { challenges, ..Response::default() }.schemes()
    };
    assert_eq!(schemes(&[]), [""; 0]);
    assert_eq!(schemes(&["Basic realm=\"a, b\", charset=\"UTF-8\""]), ["Basic"]);
    assert_eq!(schemes(&["Digest realm=\"x\", nonce=\"Basic, y\", qop=auth", "basic realm=x"]), ["Digest", "basic"]);
    assert_eq!(schemes(&["Negotiate, Digest realm=x,BASIC realm=y"]), ["Negotiate", "Digest", "BASIC"]);
    assert_eq!(
        answer(&[b"HTTP/1.1 401 No\r\nwww-authenticate: Digest a=b\r\nWWW-Authenticate: Basic\r\n\r\n"])
            .unwrap()
            .schemes(),
        ["Digest", "Basic"]
    );
}

#[test]
fn certificates_that_are_none() {
    assert_eq!(certs_only(b" \r\n"), Err(EstError::NotCertsOnly("it is empty".into())));
    assert_eq!(certs_only(b"<html>"), Err(EstError::NotBase64));
    assert_eq!(certs_only(&message(&[])), Err(EstError::Count(0)));
    assert_eq!(certs_only(&message(&[ONE; MAX_CERTIFICATES + 1])), Err(EstError::Count(MAX_CERTIFICATES + 1)));
    assert!(matches!(certs_only(ONE), Err(EstError::NotCertsOnly(_))), "a SEQUENCE that is neither");
    for body in
        ["-----BEGIN PKCS7-----", "-----BEGIN PKCS7-----\nMAMC", "-----BEGIN PKCS7-----\n!\n-----END PKCS7-----"]
    {
        assert_eq!(certs_only(body.as_bytes()), Err(EstError::NotBase64), "{body}");
    }
    let whole = message(&[ONE]);
    for length in 1..whole.len() {
        assert!(
            matches!(certs_only(&whole[..length]), Err(EstError::NotCertsOnly(_) | EstError::Count(0))),
            "{length}"
        );
    }
}

#[test]
fn what_a_status_means() {
    let response =
        |status, body: &[u8]| Response { status, reason: "Reason".into(), body: body.to_vec(), ..Response::default() };
    assert_eq!(outcome(&response(200, &message(&[ONE]))), Ok(Outcome::Issued(vec![ONE.to_vec()])));
    assert_eq!(outcome(&response(202, b"")), Ok(Outcome::RetryAfter(None)));
    let mut later = response(202, b"");
    for (value, want) in [
        ("120", Some(RetryAfter::Delay(Duration::from_secs(120)))),
        ("99999999999999999999", Some(RetryAfter::Delay(Duration::from_secs(u64::MAX)))),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(RetryAfter::At(Timestamp::from_secs(784_111_777)))),
        ("soon", None),
    ] {
        later.retry_after = Some(value.into());
        assert_eq!(outcome(&later), Ok(Outcome::RetryAfter(want)));
    }
    later.date = Some("Sun Nov  6 08:49:00 1994".into());
    for (value, delay) in [("Sunday, 06-Nov-94 08:49:37 GMT", 37), ("Sun, 06 Nov 1994 08:48:59 GMT", 0)] {
        later.retry_after = Some(value.into());
        let delay = RetryAfter::Delay(Duration::from_secs(delay));
        assert_eq!(outcome(&later), Ok(Outcome::RetryAfter(Some(delay))), "{value}");
    }
    assert_eq!(
        outcome(&response(401, b"who are you?\n")),
        Err(EstError::Unauthorized { schemes: vec![], text: "who are you?".into() })
    );
    assert_eq!(
        outcome(&response(403, b"names differ from the record\nmore\n")),
        Err(EstError::Refused { status: 403, text: "names differ from the record".into() })
    );
    assert_eq!(outcome(&response(404, b"<html>x")), Err(EstError::Refused { status: 404, text: "Reason".into() }));
    assert_eq!(
        outcome(&response(503, b"\x1b[2J")),
        Err(EstError::Busy { status: 503, text: "\\u{1b}[2J".into(), retry_after: None })
    );
    assert_eq!(outcome(&response(301, b"")), Err(EstError::Redirect { status: 301, location: None }));
}

#[test]
fn dates() {
    // RFC 9110 §5.6.7
    for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
        assert_eq!(date(text), Some(Timestamp::from_secs(784_111_777)), "{text}");
    }
    // date -u -d @951782400
    assert_eq!(date("Tue, 29 Feb 2000 00:00:00 GMT"), Some(Timestamp::from_secs(951_782_400)));
    assert_eq!(date("Fri, 31 Dec 9999 23:59:59 GMT"), Some(Timestamp::from_secs(253_402_300_799)));
    for text in [
        "",
        "now",
        "Mon, 06 Nov 1994 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0100",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 06 Nov 1994 08:49 GMT",
        "Thu, 29 Feb 2001 00:00:00 GMT",
        "Wed, 31 Dec 1969 23:59:59 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT GMT",
    ] {
        assert_eq!(date(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn any_time_reads_as_itself(secs in 0u64..253_402_300_800) {
        let at = Timestamp::from_secs(secs);
        let (year, month, day, hour, minute, second) = at.civil();
        let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][month as usize - 1];
        let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(secs / 86_400 % 7) as usize];
        let text = format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT");
        prop_assert_eq!(date(&text), Some(at));
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), cut in 0usize..600) {
        let (one, two) = bytes.split_at(cut.min(bytes.len()));
        let _ = answer(&[one, two]);
        let _ = certs_only(&bytes);
        let _ = base64(&bytes);
        let _ = date(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn random_bytes_behind_a_good_beginning_never_panic(
        start in prop::sample::select(vec![
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 202 Accepted\r\nRetry-After: ",
        ]),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        if let Ok(response) = answer(&[start.as_bytes(), &bytes]) {
            let _ = outcome(&response);
        }
    }

    #[test]
    fn a_flipped_byte_in_a_message_never_panics(at in 0usize..100, to in any::<u8>()) {
        let mut der = message(&[ONE, TWO]);
        let at = at % der.len();
        der[at] = to;
        let _ = certs_only(&der);
    }

    #[test]
    fn splitting_an_answer_changes_nothing(cut in 0usize..200) {
        let whole = b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        let (one, two) = whole.split_at(cut.min(whole.len()));
        prop_assert_eq!(answer(&[one, two]), answer(&[whole]));
    }
}
