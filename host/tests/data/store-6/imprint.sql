-- What imprint-host of schema version 6 wrote: sqlite3 imprint.db .dump
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE urls (position INTEGER PRIMARY KEY, url TEXT NOT NULL) STRICT;
INSERT INTO urls VALUES(0,'https://127.0.0.1:18443/.well-known/est');
CREATE TABLE nodes (
    name TEXT PRIMARY KEY,
    file TEXT NOT NULL,
    record TEXT NOT NULL,
    added_at INTEGER NOT NULL
, claimed INTEGER NOT NULL DEFAULT 0) STRICT;
INSERT INTO nodes VALUES('web','web.toml',replace('name = "web"\nsubject = ["CN=web.example.org", "O=Example \"Ltd\"", "OU=Rack 7", "C=DE", "ST=Berlin", "L=Mitte", "serialNumber=SN-1", "DC=example"]\nsans = ["dns:web.example.org", "ip:192.0.2.10", "ip:2001:db8::10", "uri:spiffe://example.org/web", "email:ops@example.org"]\nhostname = "web"\nusages = ["clientAuth", "serverAuth"]\nvalidity = "30d"\nbind = { uuid = "4c4c4544-0042-3510-8054-b4c04f564433", macs = ["52:54:00:12:34:56"], serial = "SN-1" }\n[[network]]\nmatch = { mac = "52:54:00:12:34:56" }\ndhcp4 = true\n','\n',char(10)),1795954905051,1);
INSERT INTO nodes VALUES('stateless','stateless.toml',replace('name = "stateless"\nsubject = ["CN=stateless"]\nkey = "p384"\nenrol = "each-boot"\n','\n',char(10)),1795954905051,1);
INSERT INTO nodes VALUES('ed25519','ed25519.toml',replace('name = "ed25519"\nsans = ["dns:ed25519.example.org"]\nkey = "ed25519"\n','\n',char(10)),1795954905051,1);
INSERT INTO nodes VALUES('rsa2048','rsa2048.toml',replace('name = "rsa2048"\nsans = ["dns:rsa2048.example.org"]\nkey = "rsa2048"\n','\n',char(10)),1795954905051,1);
INSERT INTO nodes VALUES('rsa3072','rsa3072.toml',replace('name = "rsa3072"\nsans = ["dns:rsa3072.example.org"]\nkey = "rsa3072"\n','\n',char(10)),1795954905051,1);
INSERT INTO nodes VALUES('row1','rows.csv:2',replace('name = "row1"\nsubject = ["CN=row1"]\nsans = ["dns:row1.example.org"]\n[[network]]\nmatch = { any = true }\naddresses = ["192.0.2.21/24"]\n','\n',char(10)),1795954905171,1);
INSERT INTO nodes VALUES('row2','rows.csv:3',replace('name = "row2"\nsubject = ["CN=Zeile ü"]\n[[network]]\nmatch = { any = true }\naddresses = ["192.0.2.22/24"]\n','\n',char(10)),1795954905171,1);
INSERT INTO nodes VALUES('row3','dup.toml',replace('name = "row3"\nsubject = ["CN=row3"]\nsans = ["dns:web.example.org"]\n','\n',char(10)),1795954905220,1);
INSERT INTO nodes VALUES('obsolete','obsolete.toml',replace('name = "obsolete"\nsubject = ["CN=obsolete"]\ncolour = 1\n','\n',char(10)),1796000000000,0);
CREATE TABLE payloads (
    id BLOB PRIMARY KEY,
    node TEXT NOT NULL REFERENCES nodes (name),
    token_hash BLOB NOT NULL,
    mode TEXT NOT NULL CHECK (mode IN ('once', 'each-boot')),
    composed INTEGER NOT NULL,
    expiry INTEGER NOT NULL,
    spent_at INTEGER,
    spent_by TEXT,
    void_at INTEGER
, denied_at INTEGER) STRICT;
INSERT INTO payloads VALUES(X'2597d3df066ce05fcfefc4c4a9fdd5d7','row1',X'28291de95a42f198feb6e620eef41013c913f3a0b0746484d3f8b0cc2ff94f90','once',1795954928686,2111314928686,1795954929198,'PQPT-EQA1-SZCD-GTRT',NULL,NULL);
INSERT INTO payloads VALUES(X'80dbfc54d30e2f6d5b596de210cbb1c2','stateless',X'14bc926bd4848c60e81da5b6ce01499c45bf3901ddd4b37c34676e71a2d9ceb3','each-boot',1795954928729,2111314928729,NULL,NULL,NULL,NULL);
INSERT INTO payloads VALUES(X'8dcecc463c2f8ff08c6e26766dad743d','ed25519',X'bb38b3810ed89663255811d9e477a32ec8d9b4dc2567a71f6bd54a06cad0397f','once',1795954928783,2111314928783,NULL,NULL,NULL,NULL);
INSERT INTO payloads VALUES(X'0ba8b2975d99e217e2a3d0c2212ed49b','row2',X'3446869aa22d36af2df5c77ca15e53dee8bb70273cdc6fb94e5dfa1eb3f5fc93','once',1795954928827,2111314928827,1795954928827,'Z6SB-MTCA-5QM4-4T7C',1795954929599,NULL);
INSERT INTO payloads VALUES(X'75e23df7305b193a10489f4f083bff94','web',X'8caca1982f28b462cc43bf9096e7a48bc75b4586db23eb5035cd8ca28df4992f','once',1795954928880,2111314928880,NULL,NULL,1795954928916,NULL);
INSERT INTO payloads VALUES(X'fa762feb9f5527ba699d4db2647c78ce','web',X'b917b0171cbab5f59cc30606341269c77cf7d83f149a1c178287beea1cf3252f','once',1795954928916,2111314928916,NULL,NULL,NULL,NULL);
INSERT INTO payloads VALUES(X'4a0226439ac8e0c6a37707d787677423','rsa2048',X'7cfc34931e7420d50af6edd47ea8d86e9ee358c6f49d8c102ac5fee4b1f9e75e','once',1795954928952,2111314928952,NULL,NULL,NULL,NULL);
CREATE TABLE certificates (
    serial BLOB PRIMARY KEY,
    node TEXT NOT NULL REFERENCES nodes (name),
    payload BLOB NOT NULL REFERENCES payloads (id),
    spki_hash BLOB NOT NULL,
    key_code TEXT NOT NULL,
    der BLOB NOT NULL,
    issued_at INTEGER NOT NULL,
    not_after INTEGER NOT NULL
, renews BLOB REFERENCES certificates (serial), seen_at INTEGER, issuer TEXT NOT NULL DEFAULT '', revoked_at INTEGER, reason INTEGER, alarmed_at INTEGER, approved INTEGER NOT NULL DEFAULT 0, peer TEXT) STRICT;
INSERT INTO certificates VALUES(X'56efb0875a201d4a83e67c59df967441','row2',X'0ba8b2975d99e217e2a3d0c2212ed49b',X'f9b2ba698a2de84268ec57219c96bbd474b58accdf655e712264501ed6ab25af','Z6SB-MTCA-5QM4-4T7C',X'308201d63082017ca003020102021056efb0875a201d4a83e67c59df967441300a06082a8648ce3d0403023021311f301d06035504030c16696d7072696e742d3338616366663036206e6f646573301e170d3236313132393132323134345a170d3237303232373132323230385a30133111300f06035504030c085a65696c6520c3bc3059301306072a8648ce3d020106082a8648ce3d030107034200040d33e0765b4bf353fad4b6dcd3c58714da9dfb35a67cca68fd04f5bc28b989c19a1f1bfc15df05c6e9dae19572663cb3ea9f7e88c3f6b358e0520ce9f1769857a381a33081a0300e0603551d0f0101ff04040302078030130603551d25040c300a06082b06010505070302301f0603551d2304183016801432c88cc57ac187d011eb765378eee8249194ecf730580603551d1f0451304f304da04ba0498647687474703a2f2f3132372e302e302e313a31383434332f63726c2f333263383863633537616331383764303131656237363533373865656538323439313934656366372e63726c300a06082a8648ce3d0403020348003045022009e61de0286779b1b9ff2cd668d377e3945e950dd60b9ef229f10878b197d5000221009a40c9c583bfb0316c08c083e181963081d2c8002a50ce6a69f749b1d9cef8e0',1795954928827,1803730928827,NULL,NULL,'32c88cc57ac187d011eb765378eee8249194ecf7',1795954929599,0,NULL,0,NULL);
INSERT INTO certificates VALUES(X'7a13c5815dcba86af23085f68f11a412','row1',X'2597d3df066ce05fcfefc4c4a9fdd5d7',X'b5eda75d41cfd8d86b1a1be848ff84e3d8fac295ee36df3de7338bbc43840a6a','PQPT-EQA1-SZCD-GTRT',X'308201f030820195a00302010202107a13c5815dcba86af23085f68f11a412300a06082a8648ce3d0403023021311f301d06035504030c16696d7072696e742d3338616366663036206e6f646573301e170d3236313132393132323134345a170d3237303232373132323230395a300f310d300b06035504030c04726f77313059301306072a8648ce3d020106082a8648ce3d03010703420004bd68934eccd7da3a542df141f8b39f88e16ba7dce5ff7d23f84ebefd1123429a8ace3761fce6906e64b0eb4c39d9e1dcddb6cc7b98bf0b0eaf7a37b560d4a9a4a381c03081bd300e0603551d0f0101ff04040302078030130603551d25040c300a06082b06010505070302301f0603551d2304183016801432c88cc57ac187d011eb765378eee8249194ecf7301b0603551d11041430128210726f77312e6578616d706c652e6f726730580603551d1f0451304f304da04ba0498647687474703a2f2f3132372e302e302e313a31383434332f63726c2f333263383863633537616331383764303131656237363533373865656538323439313934656366372e63726c300a06082a8648ce3d0403020349003046022100b0822d924a49230d19c30691d85742d49d49717ce72ef3c9858f8a4919a5c76a022100fa1c3b321aff2e99d189f8315299450665461a245e581702a59f0c468dbe47e4',1795954929198,1803730929198,NULL,1795954929263,'32c88cc57ac187d011eb765378eee8249194ecf7',NULL,NULL,NULL,0,'127.0.0.1');
INSERT INTO certificates VALUES(X'6a3466fa7d7a72fd42d6b3b91d43f04f','row1',X'2597d3df066ce05fcfefc4c4a9fdd5d7',X'9b42b85343db1d1424a797f5bf8a3c5676c05d198106d51b92b8ad8a7be046dd','KD1B-GMT3-VCEH-8957',X'308201ef30820195a00302010202106a3466fa7d7a72fd42d6b3b91d43f04f300a06082a8648ce3d0403023021311f301d06035504030c16696d7072696e742d3338616366663036206e6f646573301e170d3236313132393132323134345a170d3237303232373132323230395a300f310d300b06035504030c04726f77313059301306072a8648ce3d020106082a8648ce3d030107034200040cc45d2571faa7923152bd360e9cc5dcc95f1d767b2e98936bf8031de9a64441de95cafea7a772583982ab3668c6c13e9a22daa5202a868c10bb10da552628dca381c03081bd300e0603551d0f0101ff04040302078030130603551d25040c300a06082b06010505070302301f0603551d2304183016801432c88cc57ac187d011eb765378eee8249194ecf7301b0603551d11041430128210726f77312e6578616d706c652e6f726730580603551d1f0451304f304da04ba0498647687474703a2f2f3132372e302e302e313a31383434332f63726c2f333263383863633537616331383764303131656237363533373865656538323439313934656366372e63726c300a06082a8648ce3d0403020348003045022100ccbfaf52de9850abf184fc113ba4330a82fda009c4a06eedd6ede3e18148dfd402206a6297ff96a1962100c92bdbbd29a6b2d5c0e598b6fffb99f7003055539c3fb3',1795954929561,1803730929561,X'7a13c5815dcba86af23085f68f11a412',NULL,'32c88cc57ac187d011eb765378eee8249194ecf7',NULL,NULL,NULL,0,'127.0.0.1');
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    event TEXT NOT NULL,
    node TEXT,
    peer TEXT,
    detail TEXT NOT NULL
, actor TEXT, budget TEXT) STRICT;
INSERT INTO audit VALUES(1,1795954904891,'init',NULL,NULL,'new CA',NULL,NULL);
INSERT INTO audit VALUES(2,1795954905051,'node','web',NULL,'record from web.toml: CN=web.example.org, O=Example "Ltd", OU=Rack 7, C=DE, ST=Berlin, L=Mitte, serialNumber=SN-1, DC=example dns:web.example.org ip:192.0.2.10 ip:2001:db8::10 uri:spiffe://example.org/web email:ops@example.org','root (uid 0)',NULL);
INSERT INTO audit VALUES(3,1795954905051,'node','stateless',NULL,'record from stateless.toml: CN=stateless','root (uid 0)',NULL);
INSERT INTO audit VALUES(4,1795954905051,'node','ed25519',NULL,'record from ed25519.toml: dns:ed25519.example.org','root (uid 0)',NULL);
INSERT INTO audit VALUES(5,1795954905051,'node','rsa2048',NULL,'record from rsa2048.toml: dns:rsa2048.example.org','root (uid 0)',NULL);
INSERT INTO audit VALUES(6,1795954905051,'node','rsa3072',NULL,'record from rsa3072.toml: dns:rsa3072.example.org','root (uid 0)',NULL);
INSERT INTO audit VALUES(7,1795954905171,'node','row1',NULL,'record from rows.csv:2: CN=row1 dns:row1.example.org','root (uid 0)',NULL);
INSERT INTO audit VALUES(8,1795954905171,'node','row2',NULL,'record from rows.csv:3: CN=Zeile ü','root (uid 0)',NULL);
INSERT INTO audit VALUES(9,1795954905220,'node','row3',NULL,'record from dup.toml: CN=row3 dns:web.example.org','root (uid 0)',NULL);
INSERT INTO audit VALUES(10,1795954905220,'duplicate','row3',NULL,'dns:web.example.org is web''s, too (dns:web.example.org)','root (uid 0)',NULL);
INSERT INTO audit VALUES(11,1795954928686,'payload','row1',NULL,'payload 2597d3df066ce05fcfefc4c4a9fdd5d7, token once, expires 2036-11-26T12:22:08Z, 0 earlier void','root (uid 0)',NULL);
INSERT INTO audit VALUES(12,1795954928729,'payload','stateless',NULL,'payload 80dbfc54d30e2f6d5b596de210cbb1c2, token each-boot, expires 2036-11-26T12:22:08Z, 0 earlier void','root (uid 0)',NULL);
INSERT INTO audit VALUES(13,1795954928783,'payload','ed25519',NULL,'payload 8dcecc463c2f8ff08c6e26766dad743d, token once, expires 2036-11-26T12:22:08Z, 0 earlier void','root (uid 0)',NULL);
INSERT INTO audit VALUES(14,1795954928827,'payload','row2',NULL,'payload 0ba8b2975d99e217e2a3d0c2212ed49b, with certificate and key Z6SB-MTCA-5QM4-4T7C, until 2027-02-27T12:22:08Z, expires 2036-11-26T12:22:08Z, 0 earlier void','root (uid 0)',NULL);
INSERT INTO audit VALUES(15,1795954928880,'payload','web',NULL,'payload 75e23df7305b193a10489f4f083bff94, token once, expires 2036-11-26T12:22:08Z, 0 earlier void','root (uid 0)',NULL);
INSERT INTO audit VALUES(16,1795954928916,'payload','web',NULL,'payload fa762feb9f5527ba699d4db2647c78ce, token once, expires 2036-11-26T12:22:08Z, 1 earlier void','root (uid 0)',NULL);
INSERT INTO audit VALUES(17,1795954928952,'payload','rsa2048',NULL,'payload 4a0226439ac8e0c6a37707d787677423, token once, expires 2036-11-26T12:22:08Z, 0 earlier void','root (uid 0)',NULL);
INSERT INTO audit VALUES(18,1795954929198,'enrolled','row1','127.0.0.1','CN=row1 dns:row1.example.org key PQPT-EQA1-SZCD-GTRT, until 2027-02-27T12:22:09Z',NULL,NULL);
INSERT INTO audit VALUES(19,1795954929332,'pending','row1','127.0.0.1','key 824K-ENPP-JK9K-WDHS: token already used by key PQPT-EQA1-SZCD-GTRT at 2026-11-29T12:22:09Z',NULL,'payload 2597d3df066ce05fcfefc4c4a9fdd5d7');
INSERT INTO audit VALUES(20,1795954929437,'refused','stateless','127.0.0.1','CSR with signature algorithm 1.2.840.10045.4.3.2 for a p384 key; want p256, p384, ed25519, rsa2048 or rsa3072 with its usual signature',NULL,'stranger');
INSERT INTO audit VALUES(21,1795954929479,'refused','stateless','127.0.0.1','CSR with signature algorithm 1.2.840.10045.4.3.2 for a p384 key; want p256, p384, ed25519, rsa2048 or rsa3072 with its usual signature',NULL,'stranger');
INSERT INTO audit VALUES(22,1795954929500,'refused','stateless','127.0.0.1','CSR with signature algorithm 1.2.840.10045.4.3.2 for a p384 key; want p256, p384, ed25519, rsa2048 or rsa3072 with its usual signature',NULL,'stranger');
INSERT INTO audit VALUES(23,1795954929546,'refused','row1','127.0.0.1','wrong token',NULL,'stranger');
INSERT INTO audit VALUES(24,1795954929561,'renewed','row1','127.0.0.1','CN=row1 dns:row1.example.org key KD1B-GMT3-VCEH-8957, until 2027-02-27T12:22:09Z',NULL,NULL);
INSERT INTO audit VALUES(25,1795954929599,'revoked','row2',NULL,'key Z6SB-MTCA-5QM4-4T7C, valid until 2027-02-27T12:22:08Z: unspecified','root (uid 0)',NULL);
INSERT INTO audit VALUES(26,1795954929599,'revoked','row2',NULL,'1 payloads void: unspecified','root (uid 0)',NULL);
INSERT INTO audit VALUES(27,1795954930194,'refused','nobody','127.0.0.1','no such node',NULL,'stranger');
INSERT INTO audit VALUES(28,1795954930234,'refused','nobody','127.0.0.1','no such node',NULL,'stranger');
INSERT INTO audit VALUES(29,1795954930282,'refused','nobody','127.0.0.1','no such node',NULL,'stranger');
INSERT INTO audit VALUES(30,1795954930330,'refused','nobody','127.0.0.1','no such node',NULL,'stranger');
INSERT INTO audit VALUES(31,1795954930375,'refused','nobody','127.0.0.1','no such node',NULL,'stranger');
INSERT INTO audit VALUES(32,1795954930410,'refused','nobody','127.0.0.1','no such node',NULL,'stranger');
INSERT INTO audit VALUES(33,1795954930422,'refused','nobody','127.0.0.1','no such node',NULL,'stranger');
INSERT INTO audit VALUES(34,1795954930455,'refused','nobody','127.0.0.1','no such node',NULL,'stranger');
INSERT INTO audit VALUES(35,1795954930494,'refused','nobody','127.0.0.1','no such node',NULL,'stranger');
INSERT INTO audit VALUES(36,1795954930538,'refused','nobody','127.0.0.1','no such node',NULL,'stranger');
INSERT INTO audit VALUES(37,1795954930587,'refused','nobody','127.0.0.1','no such node',NULL,'stranger');
INSERT INTO audit VALUES(38,1795954930626,'refused','nobody','127.0.0.1','no such node',NULL,'stranger');
INSERT INTO audit VALUES(39,1795954930674,'refused','nobody','127.0.0.1','no such node',NULL,'stranger');
INSERT INTO audit VALUES(40,1795954930743,'refused','nobody','127.0.0.1','no such node',NULL,'stranger');
INSERT INTO audit VALUES(41,1795954930779,'refused','nobody','127.0.0.1','no such node',NULL,'stranger');
INSERT INTO audit VALUES(42,1795954930813,'refused','nobody','127.0.0.1','no such node',NULL,'stranger');
INSERT INTO audit VALUES(43,1795954930838,'refused','nobody','127.0.0.1','no such node',NULL,'stranger');
INSERT INTO audit VALUES(44,1795954930910,'refused','nobody','127.0.0.1','no such node',NULL,'stranger');
INSERT INTO audit VALUES(45,1795954930972,'refused','nobody','127.0.0.1','no such node',NULL,'stranger');
INSERT INTO audit VALUES(46,1795954931024,'refused','nobody','127.0.0.1','no such node',NULL,'stranger');
INSERT INTO audit VALUES(47,1795954931595,'refused','nobody','127.0.0.1','no such node',NULL,'stranger');
CREATE TABLE requests (
    id INTEGER PRIMARY KEY,
    node TEXT NOT NULL REFERENCES nodes (name),
    spki_hash BLOB NOT NULL,
    key_code TEXT NOT NULL,
    why TEXT NOT NULL,
    peer TEXT NOT NULL,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    verdict TEXT CHECK (verdict IN ('approved', 'denied')), payload BLOB REFERENCES payloads (id),
    UNIQUE (node, spki_hash)
) STRICT;
INSERT INTO requests VALUES(1,'row1',X'40893756d694d33e36399b1b7a5116495defc620d21ad1799072c5d762a5b8f1','824K-ENPP-JK9K-WDHS','token already used by key PQPT-EQA1-SZCD-GTRT at 2026-11-29T12:22:09Z','127.0.0.1',1795954929332,1795954929332,NULL,X'2597d3df066ce05fcfefc4c4a9fdd5d7');
CREATE TABLE crls (issuer TEXT PRIMARY KEY, number INTEGER NOT NULL, made_at INTEGER NOT NULL, der BLOB) STRICT;
INSERT INTO crls VALUES('32c88cc57ac187d011eb765378eee8249194ecf7',1,1795954930142,NULL);
CREATE TABLE unwritten (budget TEXT PRIMARY KEY, count INTEGER NOT NULL, since INTEGER NOT NULL) STRICT;
CREATE TABLE claims (
    id INTEGER PRIMARY KEY,
    node TEXT NOT NULL REFERENCES nodes (name),
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    shown TEXT NOT NULL,
    shared INTEGER NOT NULL CHECK (shared IN (0, 1)),
    UNIQUE (node, kind, value)
) STRICT;
INSERT INTO claims VALUES(1,'web','record','web','the record name web',0);
INSERT INTO claims VALUES(2,'web','name','dns:web.example.org','dns:web.example.org',0);
INSERT INTO claims VALUES(3,'web','name','ip:192.0.2.10','ip:192.0.2.10',0);
INSERT INTO claims VALUES(4,'web','name','ip:2001:db8::10','ip:2001:db8::10',0);
INSERT INTO claims VALUES(5,'web','name','uri:spiffe://example.org/web','uri:spiffe://example.org/web',0);
INSERT INTO claims VALUES(6,'web','name','email:ops@example.org','email:ops@example.org',0);
INSERT INTO claims VALUES(7,'web','subject-serial','sn-1','serialNumber=SN-1',0);
INSERT INTO claims VALUES(8,'web','uuid','4c4c4544004235108054b4c04f564433','UUID 4c4c4544-0042-3510-8054-b4c04f564433',0);
INSERT INTO claims VALUES(9,'web','serial','sn-1','serial number SN-1',0);
INSERT INTO claims VALUES(10,'web','mac','52:54:00:12:34:56','hardware address 52:54:00:12:34:56',0);
INSERT INTO claims VALUES(11,'web','hostname','web','host name web',0);
INSERT INTO claims VALUES(12,'stateless','record','stateless','the record name stateless',0);
INSERT INTO claims VALUES(13,'stateless','name','dns:stateless','CN=stateless',0);
INSERT INTO claims VALUES(14,'ed25519','record','ed25519','the record name ed25519',0);
INSERT INTO claims VALUES(15,'ed25519','name','dns:ed25519.example.org','dns:ed25519.example.org',0);
INSERT INTO claims VALUES(16,'rsa2048','record','rsa2048','the record name rsa2048',0);
INSERT INTO claims VALUES(17,'rsa2048','name','dns:rsa2048.example.org','dns:rsa2048.example.org',0);
INSERT INTO claims VALUES(18,'rsa3072','record','rsa3072','the record name rsa3072',0);
INSERT INTO claims VALUES(19,'rsa3072','name','dns:rsa3072.example.org','dns:rsa3072.example.org',0);
INSERT INTO claims VALUES(20,'row1','record','row1','the record name row1',0);
INSERT INTO claims VALUES(21,'row1','name','dns:row1.example.org','dns:row1.example.org',0);
INSERT INTO claims VALUES(22,'row1','name','dns:row1','CN=row1',0);
INSERT INTO claims VALUES(23,'row1','address','ip:192.0.2.21','address 192.0.2.21',0);
INSERT INTO claims VALUES(24,'row2','record','row2','the record name row2',0);
INSERT INTO claims VALUES(25,'row2','name','dns:zeile ü','CN=Zeile ü',0);
INSERT INTO claims VALUES(26,'row2','address','ip:192.0.2.22','address 192.0.2.22',0);
INSERT INTO claims VALUES(27,'row3','record','row3','the record name row3',0);
INSERT INTO claims VALUES(28,'row3','name','dns:web.example.org','dns:web.example.org',1);
INSERT INTO claims VALUES(29,'row3','name','dns:row3','CN=row3',0);
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('audit',47);
CREATE INDEX payloads_of_node ON payloads (node);
CREATE INDEX certificates_of_key ON certificates (spki_hash);
CREATE INDEX certificates_of_node ON certificates (node);
CREATE TRIGGER audit_keeps_rows BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_keeps_text BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE INDEX certificates_revoked ON certificates (issuer, not_after) WHERE revoked_at IS NOT NULL;
CREATE INDEX certificates_of_payload ON certificates (payload, issued_at);
CREATE INDEX audit_of_budget ON audit (budget, at, peer) WHERE budget IS NOT NULL;
CREATE INDEX certificates_renewed ON certificates (node, issued_at) WHERE renews IS NOT NULL;
CREATE UNIQUE INDEX claims_once ON claims (kind, value) WHERE shared = 0;
CREATE INDEX claims_of_value ON claims (kind, value);
CREATE INDEX nodes_unclaimed ON nodes (name) WHERE claimed = 0;
COMMIT;
PRAGMA user_version = 6;
