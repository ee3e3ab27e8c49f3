//! DNS messages, as far as a resolver that forwards must look into them (RFC 1035, 4; RFC 6891).
//!
//! That is the header, one question, the size an EDNS client takes, and where in an answer the lifetimes
//! are. Everything else passes byte by byte, so that record types and extensions of tomorrow do, too.
//! Nothing here panics whatever the bytes, and nothing follows a compression pointer, so nothing loops.

/// Length of a message's header, in bytes.
pub const HEADER_BYTES: usize = 12;
/// The longest answer for a UDP client that does not say what it takes (RFC 1035, 4.2.1), in bytes.
pub const UDP_BYTES: usize = 512;
/// The longest answer over UDP, whatever a client says it takes: one that no path fragments.
pub const UDP_BYTES_MAX: usize = 1232;
/// The longest message there is, in bytes: its length over TCP has 16 bits.
pub const MESSAGE_BYTES_MAX: usize = 65_535;

const NAME_BYTES_MAX: usize = 255;
const RESPONSE: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;
const RECURSION_AVAILABLE: u16 = 0x0080;
const RCODE: u16 = 0x000f;
/// Additional records of a query: EDNS, and a signature or two.
const ADDITIONAL_MAX: u16 = 8;

/// Record types that the resolver itself tells apart.
pub mod kind {
    /// An IPv4 address.
    pub const A: u16 = 1;
    /// The start of a zone; in a negative answer it says how long that holds.
    pub const SOA: u16 = 6;
    /// The name of an address.
    pub const PTR: u16 = 12;
    /// An IPv6 address.
    pub const AAAA: u16 = 28;
    /// EDNS.
    pub const OPT: u16 = 41;
    /// Every type there is; only in questions.
    pub const ANY: u16 = 255;
}

/// The Internet, the only class there are names in.
pub const CLASS_IN: u16 = 1;

/// Response codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rcode {
    /// An answer, though there may be no records in it.
    NoError = 0,
    /// The question is not to be understood.
    FormatError = 1,
    /// The resolver could not find out.
    ServerFailure = 2,
    /// There is no such name.
    NameError = 3,
    /// The resolver does not do that.
    NotImplemented = 4,
    /// The resolver does not do that for this client.
    Refused = 5,
}

impl Rcode {
    /// The response code of a message; `None` if it is one not named here, or there is no header.
    pub fn of(message: &[u8]) -> Option<Self> {
        let all = [
            Self::NoError,
            Self::FormatError,
            Self::ServerFailure,
            Self::NameError,
            Self::NotImplemented,
            Self::Refused,
        ];
        let code = word(message, 2)? & RCODE;
        all.into_iter().find(|rcode| u16::from(*rcode as u8) == code)
    }
}

/// A question, with what must be known of the message it came in.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Its identifier, which the answer must repeat.
    pub id: u16,
    /// The record type asked for; see [`kind`].
    pub kind: u16,
    /// The class asked for.
    pub class: u16,
    /// The name, type and class as they were written.
    pub question: &'a [u8],
    /// The longest answer the client says it takes over UDP, in bytes; `None` without EDNS.
    pub edns_bytes: Option<u16>,
    flags: u16,
}

/// Why a message is no question that can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswerable {
    /// Not even a header, or an answer: to be ignored.
    NoQuery,
    /// A query that is answered by this code, without repeating its question.
    Refused {
        /// Its identifier.
        id: u16,
        /// The code to answer with.
        rcode: Rcode,
    },
}

impl<'a> Query<'a> {
    /// Reads a message that should be a query.
    ///
    /// # Errors
    /// [`Unanswerable`].
    pub fn parse(message: &'a [u8]) -> Result<Self, Unanswerable> {
        let (Some(id), Some(flags)) = (word(message, 0), word(message, 2)) else {
            return Err(Unanswerable::NoQuery);
        };
        if message.len() < HEADER_BYTES || flags & RESPONSE != 0 {
            return Err(Unanswerable::NoQuery);
        }
        if flags & OPCODE != 0 {
            return Err(Unanswerable::Refused { id, rcode: Rcode::NotImplemented });
        }
        Self::parse_question(message, id, flags)
            .ok_or(Unanswerable::Refused { id, rcode: Rcode::FormatError })
    }

    fn parse_question(message: &'a [u8], id: u16, flags: u16) -> Option<Self> {
        let counts = [word(message, 4)?, word(message, 6)?, word(message, 8)?];
        let additional = word(message, 10)?;
        if counts != [1, 0, 0] || additional > ADDITIONAL_MAX {
            return None;
        }
        let name_end = skip_plain_name(message, HEADER_BYTES)?;
        let question = message.get(HEADER_BYTES..name_end + 4)?;
        let mut edns_bytes = None;
        let mut at = name_end + 4;
        for _ in 0..additional {
            let record = Record::parse(message, at)?;
            if record.kind == kind::OPT {
                edns_bytes = Some(record.class);
            }
            at = record.end;
        }
        let (kind, class) = (word(message, name_end)?, word(message, name_end + 2)?);
        Some(Self { id, kind, class, question, edns_bytes, flags })
    }

    /// The name asked for, in lower case, its labels joined by dots.
    pub fn name(&self) -> Name {
        let mut name = Name { text: [0; NAME_BYTES_MAX], length: 0 };
        let mut at = 0;
        while let Some(label) = label(self.question, at) {
            if at > 0 {
                name.push(b'.');
            }
            at += 1 + label.len();
            // A dot inside a label would make two of it: no name of ours has one.
            label
                .iter()
                .for_each(|byte| name.push(if *byte == b'.' { 0 } else { byte.to_ascii_lowercase() }));
        }
        name
    }

    /// The longest answer over UDP that the client takes, in bytes.
    pub fn udp_limit(&self) -> usize {
        self.edns_bytes.map_or(UDP_BYTES, usize::from).clamp(UDP_BYTES, UDP_BYTES_MAX)
    }

    /// Whether a message is an answer to this query: an answer, with its identifier and its question.
    pub fn is_answered_by(&self, message: &[u8]) -> bool {
        let question = message.get(HEADER_BYTES..HEADER_BYTES + self.question.len());
        word(message, 0) == Some(self.id)
            && word(message, 2).is_some_and(|flags| flags & (RESPONSE | OPCODE) == RESPONSE)
            && word(message, 4) == Some(1)
            && question.is_some_and(|question| question.eq_ignore_ascii_case(self.question))
    }
}

/// A name of at most 255 bytes.
#[derive(Clone, Copy)]
pub struct Name {
    text: [u8; NAME_BYTES_MAX],
    length: usize,
}

impl Name {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }

    fn push(&mut self, byte: u8) {
        // The wire form, which was checked, is never shorter than the text.
        if let Some(place) = self.text.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.bytes()))
    }
}

/// Writes the answer to one query.
#[derive(Debug)]
pub struct Answer<'a> {
    out: &'a mut Vec<u8>,
    limit: usize,
    edns: bool,
}

/// The OPT record of an answer: root, type, our size, no extended code, no options.
const OPT_RECORD: [u8; 11] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];
const OPT_TRAILER: usize = OPT_RECORD.len();

impl<'a> Answer<'a> {
    /// Starts an answer of at most `limit` bytes in `out`, which is emptied first.
    pub fn new(query: &Query<'_>, rcode: Rcode, limit: usize, out: &'a mut Vec<u8>) -> Self {
        let edns = query.edns_bytes.is_some();
        let flags = RESPONSE | query.flags & RECURSION_DESIRED | RECURSION_AVAILABLE | u16::from(rcode as u8);
        out.clear();
        for word in [query.id, flags, 1, 0, 0, u16::from(edns)] {
            out.extend(word.to_be_bytes());
        }
        out.extend(query.question);
        Self { out, limit: limit.min(MESSAGE_BYTES_MAX), edns }
    }

    /// Adds a record for the name that was asked for, if it fits; otherwise the answer is marked as cut
    /// short. Says whether it fit.
    pub fn record(&mut self, kind: u16, ttl_seconds: u32, data: &[u8]) -> bool {
        const QUESTION_NAME: [u8; 2] = [0xc0, 12];
        let trailer = if self.edns { OPT_TRAILER } else { 0 };
        let Ok(length) = u16::try_from(data.len()) else { return false };
        if self.out.len() + 12 + data.len() + trailer > self.limit {
            self.out[2] |= TRUNCATED.to_be_bytes()[0];
            return false;
        }
        self.out.extend(QUESTION_NAME);
        self.out.extend(kind.to_be_bytes());
        self.out.extend(CLASS_IN.to_be_bytes());
        self.out.extend(ttl_seconds.to_be_bytes());
        self.out.extend(length.to_be_bytes());
        self.out.extend(data);
        let count = u16::from_be_bytes([self.out[6], self.out[7]]).saturating_add(1);
        self.out[6..8].copy_from_slice(&count.to_be_bytes());
        true
    }

    /// Ends the answer.
    pub fn finish(self) {
        if self.edns {
            self.out.extend(OPT_RECORD);
        }
    }
}

/// Writes an answer without records.
pub fn empty(query: &Query<'_>, rcode: Rcode, out: &mut Vec<u8>) {
    Answer::new(query, rcode, UDP_BYTES_MAX, out).finish();
}

/// Writes the answer to a query that cannot be answered.
pub fn refuse(id: u16, rcode: Rcode, out: &mut Vec<u8>) {
    out.clear();
    for word in [id, RESPONSE | RECURSION_AVAILABLE | u16::from(rcode as u8), 0, 0, 0, 0] {
        out.extend(word.to_be_bytes());
    }
}

/// Makes an answer that is too long for its client one without records that says it was cut short, upon
/// which the client asks again over TCP (RFC 2181, 9).
pub fn truncate(query: &Query<'_>, limit: usize, answer: &mut Vec<u8>) {
    if answer.len() > limit {
        empty(query, Rcode::NoError, answer);
        answer[2] |= TRUNCATED.to_be_bytes()[0];
    }
}

/// Whether an answer says that it was cut short.
pub fn is_truncated(message: &[u8]) -> bool {
    word(message, 2).is_some_and(|flags| flags & TRUNCATED != 0)
}

/// Gives a message another identifier.
pub fn set_id(message: &mut [u8], id: u16) {
    if let Some(field) = message.get_mut(..2) {
        field.copy_from_slice(&id.to_be_bytes());
    }
}

/// A resource record, as far as it is looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its type.
    pub kind: u16,
    /// Its class.
    pub class: u16,
    /// The time it holds, in seconds.
    pub ttl_seconds: u32,
    /// The place in the message where that is said.
    pub ttl_at: usize,
    /// The place in the message where it ends.
    pub end: usize,
}

impl Record {
    fn parse(message: &[u8], at: usize) -> Option<Self> {
        let fixed = skip_name(message, at)?;
        let end = fixed + 10 + usize::from(word(message, fixed + 8)?);
        let ttl_at = fixed + 4;
        let ttl_seconds = double_word(message, ttl_at)?;
        let record =
            Self { kind: word(message, fixed)?, class: word(message, fixed + 2)?, ttl_seconds, ttl_at, end };
        (end <= message.len()).then_some(record)
    }
}

/// The records of an answer with one question, all sections in order; `None` if it is malformed.
pub fn records(message: &[u8]) -> Option<Vec<Record>> {
    let count = [6, 8, 10].into_iter().try_fold(0, |sum, at| Some(sum + usize::from(word(message, at)?)))?;
    let mut at = skip_plain_name(message, HEADER_BYTES)? + 4;
    let mut records = Vec::new();
    for _ in 0..count {
        let record = Record::parse(message, at)?;
        at = record.end;
        records.push(record);
    }
    Some(records)
}

/// Whether an answer has records that answer the question.
pub fn has_answers(message: &[u8]) -> bool {
    word(message, 6).is_some_and(|count| count > 0)
}

/// The time an answer may be kept, in seconds: the shortest lifetime of its records, and for one without
/// answers what the zone's SOA says (RFC 2308, 5). `None` if it may not be kept.
pub fn lifetime_seconds(message: &[u8]) -> Option<u32> {
    let records = records(message)?;
    let lasting = |record: &&Record| record.kind != kind::OPT;
    let shortest = records.iter().filter(lasting).map(|record| record.ttl_seconds).min()?;
    if has_answers(message) {
        return Some(shortest);
    }
    let soa = records.iter().find(|record| record.kind == kind::SOA)?;
    let minimum = double_word(message, soa.end.checked_sub(4)?)?;
    Some(shortest.min(minimum))
}

/// Takes `seconds` off the lifetime of every record of an answer.
pub fn age(message: &mut [u8], seconds: u32) {
    let records = records(message).unwrap_or_default();
    for record in records.iter().filter(|record| record.kind != kind::OPT) {
        let left = record.ttl_seconds.saturating_sub(seconds);
        message[record.ttl_at..record.ttl_at + 4].copy_from_slice(&left.to_be_bytes());
    }
}

/// Appends a name in wire form. Whether it could be: no label is empty or longer than 63 bytes, and the
/// whole no longer than 255.
pub fn write_name(labels: &[&str], out: &mut Vec<u8>) -> bool {
    let from = out.len();
    for label in labels.iter().flat_map(|part| part.split('.')) {
        match u8::try_from(label.len()) {
            Ok(length @ 1..=63) => out.push(length),
            _ => return false,
        }
        out.extend(label.as_bytes());
    }
    out.push(0);
    out.len() - from <= NAME_BYTES_MAX
}

/// Behind a name that may end in a compression pointer.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

/// Behind a name without compression, of at most 255 bytes.
fn skip_plain_name(message: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(label) = label(message, at) {
        at += 1 + label.len();
    }
    (message.get(at) == Some(&0) && at + 1 - from <= NAME_BYTES_MAX).then_some(at + 1)
}

/// The label at an offset; `None` at the end of the name and for what is no label.
fn label(message: &[u8], at: usize) -> Option<&[u8]> {
    let length = usize::from(*message.get(at)?);
    if length == 0 || length > 63 {
        return None;
    }
    message.get(at + 1..at + 1 + length)
}

fn word(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

fn double_word(message: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(message.get(at..at + 4)?.try_into().ok()?))
}
