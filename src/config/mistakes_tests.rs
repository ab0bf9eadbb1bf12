//! What is said about wrong files.

use super::{
    tests::{DIALPLAN, DIALPLAN_INTERNAL, assert_problems, files},
    *,
};

const USER: &str = "[user.1001]\npassword = \"x\"\n";

/// Each of these, put before a user, has exactly these problems.
#[test]
fn each_mistake_has_its_sentence() {
    for (pbx, want) in [
        ("x = ", "1 C001 this is not TOML: string values must be quoted, expected literal string"),
        ("[nod]", "1 C002 `nod` is not a key of the configuration | did you mean `node`?"),
        ("[sip]\nrealms = ''", "2 C002 `realms` is not a key of [sip] | did you mean `realm`?"),
        ("[sip]\nport = 5060", "2 C002 `port` is not a key of [sip]"),
        ("[sip]\nrealm = 5", "2 C003 expected a string, found an integer"),
        ("sip = 5", "1 C003 expected a table, found an integer"),
        ("trunk = 5", "1 C003 expected a table, found an integer"),
        ("[trunk]\na = 5", "2 C003 expected a table, found an integer"),
        (
            "[trunk.a]",
            "1 C004 [trunk.a] needs `uri` | for example: uri = \"example.pstn.twilio.com\"",
        ),
        (
            "[user.a]",
            "1 C004 [user.a] needs `password` | for example: password = \"env:PHONE_PASSWORD\"",
        ),
        ("include = 'x.toml'", "1 C006 cannot read `conf/x.toml`: no such file"),
        (
            "include = 'x/*.toml'",
            "1 C007 no file fits `x/*.toml` | paths are relative to the file that names them",
        ),
        (
            "include = 'pbx.toml'",
            "1 C008 `conf/pbx.toml` is included already | a file may be included once, and not by \
             itself",
        ),
        (
            "[rtp]\ntimeout = 'a minute'",
            "2 C009 `a minute` is not a duration | write \"20s\", \"5m\", \"1h30m\" or \"250ms\", \
             or a whole number of seconds",
        ),
        ("[rtp]\nworkers = 0", "2 C010 0 is out of range: 1 to 64"),
        (
            "[rtp]\nkernel = 1",
            "2 C003 expected true, false, or names of network interfaces, found an integer",
        ),
        ("[rtp]\ndscp = 64", "2 C010 64 is out of range: 0 to 63"),
        ("[rtp]\nunanswered = '1s'", "2 C010 `1s` is out of range: 5s to 1d"),
        ("[rtp]\ncoalesce = '3ms'", "2 C010 `3ms` is out of range: 0s to 2ms"),
        ("[bans]\nguesses = 0", "2 C010 0 is out of range: 1 to 10000"),
        ("[bans]\nguess = 5", "2 C002 `guess` is not a key of [bans]"),
        ("[bans]\njunk = true", "2 C003 expected an integer, found true or false"),
        ("[bans]\nwithin = '2d'", "2 C010 `2d` is out of range: 1s to 1d"),
        ("[bans]\nfirst = '2h'\nlongest = '1h'", "2 C100 `first` is longer than `longest`"),
        ("[bans]\nlongest = '1m'", "2 C100 `first` is longer than `longest`"),
        (
            "[bans]\nnever = ['10.0.0.1/8']",
            "2 C029 `10.0.0.1/8` is not a network: the address has bits beyond its prefix; write \
             10.0.0.0/8",
        ),
        (
            "[bans]\nscanners = ['sip']",
            "2 C101 `sip` cannot tell a scanner from a phone | write four characters or more of its \
             User-Agent, in ASCII",
        ),
        ("[sip]\ndscp = -1", "2 C010 -1 is out of range: 0 to 63"),
        ("[sip]\nmax_ringing = 0", "2 C010 0 is out of range: 1 to 1000000"),
        ("[sip]\nmax_connections = 15", "2 C010 15 is out of range: 16 to 1000000"),
        ("[sip]\nmin_se = 60", "2 C010 `60s` is out of range: 90s to 1d"),
        (
            "[log]\nlevel = 'infos'",
            "2 C011 `infos` is not one of `error`, `warn`, `info`, `debug`, `trace` | did you mean \
             `info`?",
        ),
        ("[sip]\ndigest = ['SHA-1']", "2 C011 `SHA-1` is not one of `SHA-256`, `MD5`"),
        (
            "[rtp]\ncodecs = ['PCMX']",
            "2 C011 `PCMX` is not one of `PCMU`, `PCMA`, `opus`, `G722`, `G729`, `GSM`, `iLBC`, \
             `speex` | did you mean `PCMA`?",
        ),
        (
            "[http]\nlisten = 'localhost'",
            "2 C012 `localhost` is not an address and a port | write \"127.0.0.1:5070\" or \
             \"[::1]:5070\"",
        ),
        ("[node]\ndrain = '8d'", "2 C010 `8d` is out of range: 0s to 7d"),
        (
            "[node]\nresolver = ['192.0.2.53', 'dns.example.com']",
            "2 C090 `dns.example.com` is not the address of a name server | write its address, with a \
             port if that is not 53: \"127.0.0.1:5353\"",
        ),
        (
            "[sip]\nlisten = 'sctp:0.0.0.0:5060'",
            "2 C013 `sctp:0.0.0.0:5060` is not a listener | write \"udp:0.0.0.0:5060\", \
             \"tcp:0.0.0.0:5060\", \"tls:0.0.0.0:5061\" or \"udp:[::]:5060\"",
        ),
        (
            "[sip]\nlisten = 'udp:0.0.0.0:65536'",
            "2 C013 `udp:0.0.0.0:65536` is not a listener | write \"udp:0.0.0.0:5060\", \
             \"tcp:0.0.0.0:5060\", \"tls:0.0.0.0:5061\" or \"udp:[::]:5060\"",
        ),
        (
            "[sip]\nlisten = [\n'udp:0.0.0.0:5060',\n'udp:0.0.0.0:5060']",
            "4 C014 `udp:0.0.0.0:5060` is listened on twice",
        ),
        (
            "[sip]\nlisten = [\n'tcp:127.0.0.1:5060',\n'tcp:0.0.0.0:5060']",
            "4 C014 `tcp:0.0.0.0:5060` is listened on twice",
        ),
        (
            "[rtp]\nports = '20000-10000'",
            "2 C015 `20000-10000` is not a range of ports | write \"10000-20000\"",
        ),
        ("[rtp]\nports = '10000-70000'", "2 C016 port 70000 is out of range: 1024 to 65535"),
        (
            "[rtp]\nports = '10000-10003'",
            "2 C017 4 ports are too few: 2 media workers need at least 8 | a call takes four \
             ports: RTP and RTCP for each of its two legs",
        ),
        (
            "[node]\npublic_ip = 'eth0'",
            "2 C018 `eth0` is not an IP address, `auto` or `interface:NAME`",
        ),
        (
            "[trunk.a]\nuri = 'acme.sip.twilio.com'",
            "2 C019 `acme.sip.twilio.com` is a SIP domain, not a termination URI | the termination \
             URI of a trunk ends in `.pstn.twilio.com`: \"acme.pstn.twilio.com\" if the trunk is \
             called so",
        ),
        (
            "[trunk.a]\nuri = 'acme.sip.frankfurt.twilio.com'",
            "2 C019 `acme.sip.frankfurt.twilio.com` is a SIP domain, not a termination URI | the \
             termination URI of a trunk ends in `.pstn.twilio.com`: \"acme.pstn.twilio.com\" if the \
             trunk is called so",
        ),
        (
            "[trunk.a]\nuri = 'acme.twilio.com'\npreset = 'twilio'\ncaller_id = '+17756187988'",
            "2 C044 `acme.twilio.com` is not a termination URI of Twilio's | calls to any other host \
             are dropped without an answer: \"example.pstn.twilio.com\"",
        ),
        (
            "[sip]\nrealm = 'a\"b'",
            "2 C045 `a\\\"b` cannot stand in a SIP header | leave out quotes, backslashes and control \
             characters",
        ),
        (
            "[trunk.a]\nuri = 'sip:a@b'",
            "2 C020 `sip:a@b` is not the name of a host | write only the host, such as \
             \"example.pstn.twilio.com\"",
        ),
        (
            "[trunk.a]\nuri = 'a.b'\nretry = { on = [503, '503-500'] }",
            "3 C066 `503-500` is neither `timeout` nor a final status | write \"timeout\", 503 or \
             \"500-504\"",
        ),
        (
            "[trunk.a]\nuri = 'a.b'\nretry = { next = ['url'] }",
            "3 C011 `url` is not one of `caller_id`, `uri`, `trunk` | did you mean `uri`?",
        ),
        ("[trunk.a]\nuri = 'a.b'\nfailover = '33s'", "3 C010 `33s` is out of range: 500ms to 32s"),
        (
            "[trunk.a]\nuri = 'a.b:0'",
            "2 C020 `a.b:0` is not the name of a host | write only the host, such as \
             \"example.pstn.twilio.com\"",
        ),
        (
            "[trunk.a]\nuri = 'a.b'\ncaller_id = '(775) 618-7988'",
            "3 C021 `(775) 618-7988` is not an E.164 number | write \"+17756187988\"",
        ),
        (
            "[trunk.a]\nuri = 'a.b'\ncaller_id = '1001'",
            "3 C021 `1001` is not an E.164 number | write `+`, the country code and the number: \
             \"+17756187988\"",
        ),
        (
            "[trunk.a]\nuri = 'a.b'\nsrtp = 'maybe'",
            "3 C011 `maybe` is not one of `off`, `prefer`, `require`",
        ),
        (
            "[trunk.a]\nuri = 'a.pstn.twilio.com'\npreset = 'twilio'\nsrtp = 'require'\n\
             caller_id = '+17756187988'",
            "4 C080 Twilio takes SRTP over TLS only, and refuses calls that have one of the two \
             (32207, 32209) | write `transport = \"tls\"`, and turn on Secure Trunking in Twilio's \
             console",
        ),
        (
            "[trunk.a]\nuri = 'a.b'\nsrtp = 'require'",
            "3 C081 the keys of SRTP go over UDP or TCP, where whoever reads them can listen | write \
             `transport = \"tls\"` for the trunk, or listen on \"tls:0.0.0.0:5061\" for phones",
        ),
        (
            "[user.a]\npassword = 'x'\nsrtp = 'require'",
            "3 C081 the keys of SRTP go over UDP or TCP, where whoever reads them can listen | write \
             `transport = \"tls\"` for the trunk, or listen on \"tls:0.0.0.0:5061\" for phones",
        ),
        (
            "[user.a]\npassword = 'env:NOPE'",
            "2 C022 the environment variable `NOPE` is not set | set it before starting: export \
             NOPE=..., or write \"file:PATH\"",
        ),
        (
            "[user.a]\npassword = 'file:nope'",
            "2 C023 cannot read the secret in `conf/nope`: no such file",
        ),
        ("[user.a]\npassword = ''", "2 C024 the secret is empty"),
        (
            "[user.a]\nha1 = 'abc'",
            "2 C026 this is not an `ha1`: 3 characters instead of 32 or 64 hexadecimal ones | the \
             MD5 (32) or SHA-256 (64) of `user:realm:password`, the realm being [sip]'s",
        ),
        (
            "[user.a]\nha1 = ['env:PHONE_1002_MD5',\n'env:PHONE_1002_MD5']",
            "3 C027 two `ha1` of the same kind",
        ),
        (
            "[user.a]\npassword = 'x'\nha1 = 'env:PHONE_1002_MD5'",
            "3 C028 write either `password` or `ha1`, not both",
        ),
        (
            "[trunk.a]\nuri = 'a.b'\nsource = ['10.0.0.1/8']",
            "3 C029 `10.0.0.1/8` is not a network: the address has bits beyond its prefix; write \
             10.0.0.0/8",
        ),
        ("[trunk.a]\nuri = 'a.b'\nusername = 'u'", "3 C030 `username` without `password`"),
        ("[trunk.a]\nuri = 'a.b'\npassword = 'u'", "3 C030 `password` without `username`"),
        (
            "[trunk.a]\nuri = 'a.b'\nqualify = { every = '1s', timeout = '2s' }",
            "3 C031 `timeout` is longer than `every`",
        ),
        (
            "[trunk.a]\nuri = 'a.pstn.twilio.com'\npreset = 'twilio'\ncaller_id = '+17756187988'\nqualify = { \
             every = '5s' }",
            "5 C032 OPTIONS more often than every 15 s: Twilio bans who asks that often | write \
             `every = \"30s\"`",
        ),
        (
            "[node]\ntimezone = 'Europe/Amsterdm'",
            "2 C033 `Europe/Amsterdm` is not a time zone | did you mean `Europe/Amsterdam`?",
        ),
        (
            "[node]\ntimezone = 'here'",
            "2 C033 `here` is not a time zone | write a name such as \"Europe/Amsterdam\"",
        ),
        (
            "[node]\ncountry = 'USA'",
            "2 C034 `USA` is not a country | write two letters, such as \"US\" or \"NL\"",
        ),
        (
            "[user.a]\npassword = 'x'\ndid = ['+17756187988',\n'+17756187988']",
            "4 C035 +1775****988 belongs to two users | keep it with one of them, and let a rule \
             ring both: dial = [\"user:1001\", ...]",
        ),
        (
            "[user.'a b']\npassword = 'x'",
            "1 C036 `a b` cannot be a name | use letters, digits, and `- _ . +`: it becomes part of \
             a SIP address",
        ),
        (
            "[http]\nlisten = '0.0.0.0:8090'",
            "2 C037 0.0.0.0:8090 can be reached from outside, and shows metrics to anybody | write \
             \"127.0.0.1:8090\", or false",
        ),
        (
            "[store]\nurl = 'postgres://x'",
            "2 C038 `postgres://x` is not a store | write \"sqlite:/var/lib/tandem/tandem.db\"",
        ),
        (
            "[sip]\nexpires_max = '10m'",
            "2 C039 `expires_min`, `expires_default` and `expires_max` are out of order",
        ),
        (
            "[trunk.a]\npreset = 'twilio'\nuri = 'a.pstn.twilio.com'\ncontext = 'internal'",
            "1 C040 the trunk has no `caller_id`, and Twilio refuses calls from numbers it does not \
             know | write `caller_id = \"+1...\"`: a number bought or verified in the account",
        ),
        (
            "[trunk.a]\nuri = 'a.b'\nowned = '+14155550100'\n[user.a]\npassword = 'x'\ncaller_id = \
             '+12125550100'",
            "6 C060 +1212****100 is neither owned nor verified on trunk `a` | add it to `owned` or \
             `verified`, or the carrier refuses every call from it",
        ),
        (
            "[trunk.a]\nuri = 'a.b'\nverified = '_+1415.'\n[emergency]\ncaller_id = '+12125550100'",
            "5 C060 +1212****100 is neither owned nor verified on trunk `a` | add it to `owned` or \
             `verified`, or the carrier refuses every call from it",
        ),
        (
            "[node]\ncountry = 'NL'\n[trunk.a]\nuri = 'a.b'\ncaller_id = '+3197012345678'",
            "5 C061 +3197****678 is one of the numbers of machines: calls from it are refused or not \
             called back | write another number of yours",
        ),
        (
            "[user.a]\npassword = 'x'\ncaller_ids = {\nGB = '+449098790000' }",
            "4 C061 +4490****000 is one of the premium rate numbers: calls from it are refused or not \
             called back | write another number of yours",
        ),
        (
            "[user.a]\npassword = 'x'\ncaller_ids = {\nXX = '+31207654321' }",
            "4 C034 `XX` is not a country | write two letters, such as \"US\" or \"NL\"",
        ),
        (
            "[user.a]\npassword = 'x'\nallow = { countries = ['NL', 'EU'] }",
            "3 C034 `EU` is not a country | write two letters, such as \"US\" or \"NL\"",
        ),
        (
            "[user.a]\npassword = 'x'\nallow = { deny_types = 'premum' }",
            "3 C011 `premum` is not one of `fixed`, `mobile`, `toll_free`, `premium`, `shared_cost`, \
             `voip`, `personal`, `pager`, `uan`, `satellite`, `unknown` | did you mean `premium`?",
        ),
        (
            "[trunk.a]\nuri = 'a.b'\nmax_rate = '1 a second'",
            "3 C064 `1 a second` is not a rate | write \"1/s\" or \"30/m\", up to 1000",
        ),
        (
            "[trunk.a]\nuri = 'a.b'\nbudget = { calls_per_hour = -1 }",
            "3 C010 -1 is out of range: 0 to 1000000",
        ),
        (
            "[trunk.a]\nuri = 'a.b'\nbudget = { calls_per_minute = 1 }",
            "3 C002 `calls_per_minute` is not a key of `budget` | did you mean `calls_per_hour`?",
        ),
        (
            "[hours.office]\ndays = 'mon'\n[user.a]\npassword = 'x'\nhours = 'offic'",
            "5 D012 there are no hours `offic` | did you mean `office`?",
        ),
        (
            "[user.a]\npassword = 'x'\nout_of_hours = 'alert'",
            "3 C011 `alert` is not one of `refuse`, `alarm`",
        ),
        ("[trunk.a]\nuri = 'a.b'\nqueue_for = '1h'", "3 C010 `1h` is out of range: 1s to 10m"),
        (
            "[emergency]\nnumbers = 'one'",
            "2 C062 `one` is not an emergency number | write its digits, such as \"112\"",
        ),
        (
            "[trunk.a]\nuri = 'a.b'\n[emergency]\ntrunk = 'b'",
            "4 D010 there is no trunk `b` | did you mean `a`?",
        ),
        (
            "[emergency]\ntrunk = false\n[trunk.a]\nuri = 'a.b'",
            "5 C063 callers in the context `internal` cannot reach 911, 933 | add a rule above the \
             others that dials a trunk, or `[emergency] trunk = \"NAME\"`",
        ),
        (
            "[user.a]\npassword = 'x'\ncontext = 'interal'",
            "3 C042 there is no context `interal` in the dialplan | did you mean `internal`?",
        ),
        (
            "[trunk.a]\nuri = 'a.b'",
            "1 C042 there is no context `inbound` in the dialplan | add a `[[inbound.rule]]` to a \
             file of the dialplan",
        ),
    ] {
        // A mistake of one kind is not to be covered by a missing context.
        let dialplan = if want.contains("C042") {
            DIALPLAN_INTERNAL.to_owned()
        } else {
            format!("{DIALPLAN_INTERNAL}[[inbound.rule]]\nmatch = \"_.\"\nreject = 404\n")
        };
        assert_problems(&files(&format!("{pbx}\n{USER}"), &dialplan), &[want]);
    }
}

#[test]
fn mistakes_that_need_two_files_have_their_sentences() {
    let public = Files::default()
        .with_public("conf/pbx.toml", "[user.1001]\npassword = \"secret\"\n")
        .with("dialplan/default.toml", DIALPLAN_INTERNAL);
    assert_problems(
        &public,
        &["2 C025 a password is written in a file that others can read | write \"env:NAME\" or \
           \"file:PATH\", or chmod 600 the file"],
    );
    let drawn = check("conf/pbx.toml", &public).report.to_string();
    assert!(drawn.contains("password = \"******\""), "{drawn}");

    // Thousands are one warning, at the first of them.
    let users: String =
        (1000..4000).map(|n| format!("[user.{n}]\npassword = \"secret\"\n")).collect();
    let many = Files::default()
        .with_public("conf/pbx.toml", &users)
        .with("dialplan/default.toml", DIALPLAN_INTERNAL);
    assert_problems(
        &many,
        &[
            "2 C025 3000 passwords are written in a file that others can read | write \"env:NAME\" or \
           \"file:PATH\", or chmod 600 the file",
        ],
    );

    let secret = files("[user.1001]\npassword = 'file:s'\n", DIALPLAN_INTERNAL)
        .with_public("conf/s", "secret");
    assert_problems(
        &secret,
        &["2 C043 others can read `conf/s`, which holds a secret | chmod 600 conf/s"],
    );

    let twice = files("include = 'b.toml'\n[user.1001]\npassword = 'x'\n", DIALPLAN_INTERNAL)
        .with("conf/b.toml", "[user.1001]\npassword = 'y'\n");
    assert_problems(&twice, &["2 C005 `password` is set twice | remove one of the two"]);

    let nothing = Files::default().with("conf/pbx.toml", "");
    assert_problems(
        &nothing,
        &[
            "1 C041 neither a trunk nor a user is configured | add a `[user.1001]` and a \
             `[trunk.NAME]`",
            "1 D029 there are no rules: every call is refused with 404 | name files with \
             `[[internal.rule]]` in `dialplan = [...]`",
        ],
    );
    let checked = check("nowhere.toml", &nothing);
    assert_eq!(checked.report.to_string(), "error[C006]: cannot read `nowhere.toml`: no such file");
}

#[test]
fn everything_wrong_is_listed_at_once_with_its_place() {
    let pbx = "[trunk.twilio]\npreset = \"twilo\"\nuri = \"acme.sip.twilio.com\"\n\
               pasword = \"env:X\"\ncaller_id = \"7756187988\"\n[rtp]\nports = \"1-70000\"\n";
    let checked = check("conf/pbx.toml", &files(pbx, DIALPLAN));
    assert_eq!(
        checked.report.to_string(),
        r#"error[C011]: `twilo` is not one of `none`, `twilio`
 --> conf/pbx.toml:2:10
  |
2 | preset = "twilo"
  |          ^^^^^^^
  |
  = help: did you mean `twilio`?

error[C019]: `acme.sip.twilio.com` is a SIP domain, not a termination URI
 --> conf/pbx.toml:3:7
  |
3 | uri = "acme.sip.twilio.com"
  |       ^^^^^^^^^^^^^^^^^^^^^
  |
  = help: the termination URI of a trunk ends in `.pstn.twilio.com`: "acme.pstn.twilio.com" if the trunk is called so

error[C002]: `pasword` is not a key of [trunk.twilio]
 --> conf/pbx.toml:4:1
  |
4 | pasword = "env:X"
  | ^^^^^^^
  |
  = help: did you mean `password`?

error[C021]: `7756187988` is not an E.164 number
 --> conf/pbx.toml:5:13
  |
5 | caller_id = "7756187988"
  |             ^^^^^^^^^^^^
  |
  = help: write "+17756187988"

error[C016]: port 1 is out of range: 1024 to 65535
 --> conf/pbx.toml:7:9
  |
7 | ports = "1-70000"
  |         ^^^^^^^^^

error[D009]: there is no user `1001`
  --> dialplan/default.toml:10:10
   |
10 | dial  = ["user:1001", "user:1002"]
   |          ^^^^^^^^^^^
   |
   = help: add a `[user.1001]`

error[D009]: there is no user `1002`
  --> dialplan/default.toml:10:23
   |
10 | dial  = ["user:1001", "user:1002"]
   |                       ^^^^^^^^^^^
   |
   = help: add a `[user.1002]`"#
    );
}
