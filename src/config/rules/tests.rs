//! What is said about wrong rules, and what right ones lead to.

use super::super::{check, tests::assert_problems};
use crate::{
    config::{Files, source::Source},
    dialplan::{Decision, LocalTime, Query},
};

const PBX: &str = "[trunk.a]\nuri = \"a.example.com\"\n\
                   [user.1001]\npassword = \"x\"\n[user.1002]\npassword = \"x\"\n";

/// Keeps every user's and trunk's context in existence.
const REST: &str = "\n[[inbound.rule]]\nmatch = \"_.\"\nreject = 404\n\
                    [[internal.rule]]\nmatch = \"0000\"\nreject = 404\n";

fn files(dialplan: &str) -> Files {
    Files::default()
        .with("conf/pbx.toml", PBX)
        .with("dialplan/default.toml", &format!("{dialplan}{REST}"))
        .with("dialplan/hello.wav", "")
}

const TARGETS: &str = "write \"user:1001\", \"trunk:NAME\", \"trunk:NAME/{number}\" or \
                       \"sip:name@host\"";

/// Rules with exactly one mistake each: what stands in the rule beside `match`, and the problem.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_mistake_in_a_rule_has_its_sentence() {
    for (keys, want) in [
        (
            "reject = 404\nname = 'x'\nmatc = ''",
            "5 C002 `matc` is not a key of the rule | did you mean `match`?".to_owned(),
        ),
        (
            "dial = 'user:{number'",
            "3 D002 `{` without its `}` | `{number}`, `{from}`, `{dialled}`, or a named group of \
             `match`"
                .to_owned(),
        ),
        (
            "dial = 'trunk:a/{rest}'",
            "3 D003 no group of `match` is called `rest` | name it in every `re:` of `match`: \
             \"re:'9(?<rest>.*)'\""
                .to_owned(),
        ),
        (
            "name = 'x'",
            "1 D004 the rule does nothing | add `dial`, `reject`, `answer`, `play`, `echo`, \
             `wait`, `hangup`, `goto` or `steps`"
                .to_owned(),
        ),
        (
            "hangup = true\nanswer = true",
            "4 D005 nothing can come after `hangup` | what follows a dial nobody answers is said \
             by `on` and `else`"
                .to_owned(),
        ),
        (
            "steps = [{ echo = true }, { hangup = true }]",
            "3 D005 nothing can come after `echo` | what follows a dial nobody answers is said by \
             `on` and `else`"
                .to_owned(),
        ),
        (
            "reject = 302",
            "3 D006 302 is not a status between 400 and 699 | 486 is busy, 480 unavailable, 403 \
             forbidden, 404 unknown"
                .to_owned(),
        ),
        ("dial = '1001'", format!("3 D007 `1001` is not something to dial | {TARGETS}")),
        ("dial = 'sip:'", format!("3 D007 `sip:` is not something to dial | {TARGETS}")),
        (
            "dial = { user = '1001', trunk = 'a' }",
            "3 D008 a target is one of `user`, `trunk` and `uri` | write { trunk = \"NAME\", number \
             = \"{number}\" }, { user = \"1001\" } or { uri = ... }"
                .to_owned(),
        ),
        (
            "dial = 'user:1003'",
            "3 D009 there is no user `1003` | did you mean `1001`?".to_owned(),
        ),
        (
            "dial = 'user:bob'",
            "3 D009 there is no user `bob` | add a `[user.bob]`".to_owned(),
        ),
        (
            "dial = 'trunk:twilio'",
            "3 D010 there is no trunk `twilio` | add a `[trunk.twilio]`".to_owned(),
        ),
        (
            "goto = 'inbond'",
            "3 D011 there is no context `inbond` | did you mean `inbound`?".to_owned(),
        ),
        (
            "reject = 404\nwhen = '!office'",
            "4 D012 there are no hours `office` | add `[hours.office]` with `days = \"mon-fri\"` \
             and `times = \"09:00-17:00\"`"
                .to_owned(),
        ),
        (
            "dial = []",
            "3 D013 there is nobody to dial | leave `dial` out, or put a target into the list"
                .to_owned(),
        ),
        (
            "dial = ['user:1001', ['user:1002']]",
            "3 D014 a list of targets rings all of them, a list of lists one after the other; this \
             is both | write [[\"user:1001\"], [\"user:1002\", \"user:1003\"]]"
                .to_owned(),
        ),
        (
            "reject = 404\nring = '5s'",
            "4 D015 `ring` without `dial` | it says how to dial, or what to do if nobody answers"
                .to_owned(),
        ),
        (
            "answer = true\nsteps = [{ hangup = true }]",
            "3 D016 `steps` already says what to do | put everything into `steps`, in order"
                .to_owned(),
        ),
        ("answer = false", "3 D017 `false` does nothing | leave the key out".to_owned()),
        (
            "dial = 'user:1001'\nelse = 'voicemail'",
            "4 D018 only \"next\" can stand here instead of a table | write \"next\" to go on with \
             the rules below, or { play = ... }"
                .to_owned(),
        ),
        (
            "goto = 'internal'",
            "1 D020 this goes round in a circle: internal[1] -> internal[1] | send the number \
             somewhere else, or change it on the way"
                .to_owned(),
        ),
        (
            "dial = 'user:1001'\non = { busy = { goto = 'internal' } }",
            "1 D020 this goes round in a circle: internal[1] -> internal[1] | send the number \
             somewhere else, or change it on the way"
                .to_owned(),
        ),
        (
            "play = 'nope.wav'",
            "3 D026 there is no file `nope.wav` | paths are relative to the dialplan file"
                .to_owned(),
        ),
        ("dial = 'user:1001'\nring = '1h'", "4 C010 `1h` is out of range: 1s to 10m".to_owned()),
        (
            "dial = 'trunk:a'\ncaller_id = '4155550199'",
            "4 C021 `4155550199` is not an E.164 number | write \"+14155550199\"".to_owned(),
        ),
        (
            "dial = 'user:1001'\non = { busi = 'next' }",
            "4 C002 `busi` is not a key of `on` | did you mean `busy`?".to_owned(),
        ),
    ] {
        let rule = format!("[[internal.rule]]\nmatch = '_1X.'\n{keys}\n");
        assert_problems(&files(&rule), &[&want]);
    }
}

#[test]
fn each_mistake_around_rules_has_its_sentence() {
    let unreachable = "[[internal.rule]]\nmatch = '_1.'\nreject = 404\n\
                       [[internal.rule]]\nmatch = '1001'\ndial = 'user:1001'\n";
    let case = "[[test]]\nfrom = '1001'\ndial = '1'\n";
    for (dialplan, want) in [
        (
            "[[internal.rule]]\nreject = 404\n",
            "1 C004 the rule needs `match` | for example: match = \"_1XXX\"",
        ),
        (
            "[[internal.rule]]\nmatch = '_[1-'\nreject = 404\n",
            "2 D001 `[` without its `]` | write a number (\"1001\"), a pattern (\"_1XXX\", \
             \"_+.\") or \"re:'...'\"",
        ),
        (
            "[[internal.rule]]\nmatch = '1'\nfrom = 're:('\nreject = 404\n",
            "3 D001 not a regular expression: unclosed group | write a number (\"1001\"), a pattern \
             (\"_1XXX\", \"_+.\") or \"re:'...'\"",
        ),
        (
            unreachable,
            "5 D019 this rule is never reached: `internal[1]` takes every number that it would | \
             move it above, or remove it",
        ),
        (
            "[other.rule]\nmatch = '1'\nreject = 404\n",
            "1 D021 rules are a list: `[[other.rule]]` | write the brackets twice",
        ),
        (
            "[other]\nrules = []\n",
            "2 C002 `rules` is not a key of the context `other` | did you mean `rule`?",
        ),
        (
            "[[internal.rule]]\nmatch = '1'\nname = 'internal[2]'\nreject = 404\n",
            "9 D022 two rules are called `internal[2]` | logs and CDRs tell rules apart by their \
             names",
        ),
        (
            "[hours.x]\ndays = 'mo-fr'\n",
            "2 D023 `mo-fr` is not a day of the week | write \"mon-fri\", or [\"mon\", \"wed\"]",
        ),
        (
            "[hours.x]\ntimes = '9-17'\n",
            "2 D024 `9-17` is not a span of the day | write \"09:00-17:30\", or \"22:00-06:00\" \
             across midnight",
        ),
        (
            "[hours.x]\nholidays = ['2026-02-30']\n",
            "2 D025 `2026-02-30` is not a day of the calendar | write \"2026-12-25\", or \"12-25\" \
             for every year",
        ),
        (
            &format!("{case}at = 'noon'\nwant = {{ rule = 'x' }}\n"),
            "4 D027 `noon` is not a date and time | write \"2026-12-25 10:30\"",
        ),
        (
            &format!("{case}want = {{}}\n"),
            "4 D028 the case wants nothing | add `rule`, `to`, `via`, `caller_id` or `rejected`",
        ),
        (case, "1 C004 the case needs `want` | for example: want = { rule = \"internal[1]\" }"),
    ] {
        assert_problems(&files(dialplan), &[want]);
    }
}

#[test]
fn the_rule_that_covers_is_pointed_at() {
    let dialplan = "[[internal.rule]]\nmatch = '_1.'\nreject = 404\n\
                    [[internal.rule]]\nmatch = '1001'\ndial = 'user:1001'\n";
    assert_eq!(
        check("conf/pbx.toml", &files(dialplan)).report.to_string(),
        r#"error[D019]: this rule is never reached: `internal[1]` takes every number that it would
 --> dialplan/default.toml:5:9
  |
2 | match = '_1.'
  |         ----- because of this
...
5 | match = '1001'
  |         ^^^^^^
  |
  = help: move it above, or remove it"#
    );
}

/// What a rule's keys lead to, as `tandem dialplan try` prints it.
#[test]
fn actions_become_steps() {
    for (keys, want) in [
        ("dial = 'user:1002'", "dial user 1002, ring 60s"),
        (
            "dial = ['user:1001', 'sip:x@192.0.2.1']\nring = 20",
            "dial user 1001 and sip:x@192.0.2.1, ring 20s",
        ),
        (
            "dial = [['user:1001'], ['user:1002', 'user:{number}']]\nring = '5s'",
            "dial user 1001, ring 5s\nthen dial user 1002 and user 1234, ring 5s",
        ),
        ("dial = 'trunk:a'", "dial 1234 via trunk a, ring 60s"),
        ("dial = 'trunk:a/+1{number:1}'", "dial +1234 via trunk a, ring 60s"),
        (
            "dial = { trunk = 'a', number = '0{rest}', caller_id = '+17756187988' }",
            "dial 034 via trunk a as +17756187988, ring 60s",
        ),
        (
            "dial = 'user:1001'\ncaller_id = '+17756187988'\nelse = { reject = 480 }\n\
             on = { busy = 'next', no_answer = [{ play = 'hello.wav' }, { hangup = true }] }",
            "dial user 1001, ring 60s, caller ID +17756187988\n  busy: go to internal#1 with 1234\n  \
             no answer: play dialplan/hello.wav\n  then: hang up\n  failed: reject with 480",
        ),
        ("reject = 486", "reject with 486"),
        (
            "wait = '1s'\nplay = 'hello.wav'\nanswer = true\necho = true",
            "wait 1s; play dialplan/hello.wav; answer; echo",
        ),
        ("goto = 'inbound/+1{rest}'", "reject with 404"),
        ("steps = [{ answer = true }, { hangup = true }]", "answer; hang up"),
    ] {
        let rule = format!("[[internal.rule]]\nmatch = \"re:'12(?<rest>..)'\"\n{keys}\n");
        let checked = check("conf/pbx.toml", &files(&rule));
        let config = checked.config.unwrap_or_else(|| panic!("{}", checked.report));
        let at = LocalTime::parse("2026-11-20 12:00").unwrap();
        let query = Query { context: "internal", from: "1001", dialled: "1234", at };
        let Decision::Matched { steps, .. } = config.dialplan.explain(&query).decision else {
            panic!("{keys}")
        };
        let steps: Vec<_> = steps.iter().map(ToString::to_string).collect();
        assert_eq!(steps.join("; "), want, "{keys}");
    }
}

#[test]
fn files_are_read_in_the_order_of_their_names() {
    let files = files("")
        .with("dialplan/a.toml", "[[internal.rule]]\nmatch = '1'\nreject = 404\n")
        .with("dialplan/z.toml", "[[internal.rule]]\nmatch = '2'\nreject = 404\n");
    assert_eq!(files.list("dialplan/*.toml").len(), 3);
    let config = check("conf/pbx.toml", &files).config.unwrap();
    let rules: Vec<_> = config.dialplan.contexts["internal"]
        .iter()
        .map(|rule| (&*rule.name, rule.origin.to_string()))
        .collect();
    assert_eq!(
        rules,
        [
            ("internal[1]", "dialplan/a.toml:1".to_owned()),
            ("internal[2]", "dialplan/default.toml:5".to_owned()),
            ("internal[3]", "dialplan/z.toml:1".to_owned()),
            ("emergency", "by itself".to_owned()),
        ]
    );
}

/// A rule's number must be one of those of a trunk that it dials.
#[test]
fn a_rules_caller_id_belongs_to_one_of_its_trunks() {
    let pbx = "[trunk.a]\nuri = 'a.b'\nowned = '+14155550100'\n[trunk.b]\nuri = 'b.c'\n\
               owned = '_+3120.'\n[user.1001]\npassword = \"x\"\n";
    let problem = |line, number, trunk| {
        format!(
            "{line} C060 {number} is neither owned nor verified on trunk `{trunk}` | add it to \
             `owned` or `verified`, or the carrier refuses every call from it"
        )
    };
    for (actions, want) in [
        ("dial = 'trunk:a'\ncaller_id = '+14155550100'", None),
        ("dial = 'trunk:a'\ncaller_id = '+31207654321'", Some(problem(4, "+3120****321", "a"))),
        ("dial = ['trunk:a', 'trunk:b']\ncaller_id = '+31207654321'", None),
        (
            "dial = [{ trunk = 'b',\nnumber = '1', caller_id = '+14155550100' }]",
            Some(problem(4, "+1415****100", "b")),
        ),
        ("dial = 'user:1001'\ncaller_id = '+12125550100'", None),
    ] {
        let plan = format!("[[internal.rule]]\nmatch = '_+.'\n{actions}\n");
        let want: Vec<&str> = want.as_deref().into_iter().collect();
        let files = files(&plan).with("conf/pbx.toml", pbx);
        assert_problems(&files, &want);
    }
}
