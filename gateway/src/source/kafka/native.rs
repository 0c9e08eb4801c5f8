//! What librdkafka knows and its crate does not tell: headers of any name, where a partition ended, and
//! whether a record that failed may have been written all the same.
//!
//! The crate's own iterator over headers panics at a name that is not UTF-8, and whoever may write to the topic chooses names.
#![allow(unsafe_code, reason = "functions of librdkafka without a wrapper, or with one that panics")]

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use rdkafka::bindings::{
    rd_kafka_get_watermark_offsets, rd_kafka_header_cnt, rd_kafka_header_get_all, rd_kafka_headers_t,
    rd_kafka_message_headers, rd_kafka_message_status, rd_kafka_msg_status_t,
};
use rdkafka::client::{Client, ClientContext};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;

/// A record's headers: those whose names are UTF-8, which Halley's are.
pub(super) fn headers<'m>(message: &'m BorrowedMessage<'_>) -> impl Iterator<Item = (&'m str, Option<&'m [u8]>)> {
    let mut all: *mut rd_kafka_headers_t = ptr::null_mut();
    // SAFETY: the message is whole for as long as it is borrowed, and is read by this thread alone, since it is not `Sync`;
    // the headers are counted only if it has some.
    let count = unsafe {
        match rd_kafka_message_headers(message.ptr(), &raw mut all) {
            RD_KAFKA_RESP_ERR_NO_ERROR => rd_kafka_header_cnt(all),
            _ => 0,
        }
    };
    (0..count).filter_map(move |at| header(message, all, at))
}

/// The header at this place of a message's, unless its name is not UTF-8.
fn header<'m>(
    _: &'m BorrowedMessage<'_>,
    all: *const rd_kafka_headers_t,
    at: usize,
) -> Option<(&'m str, Option<&'m [u8]>)> {
    let (mut name, mut value, mut bytes): (*const c_char, *const c_void, usize) = (ptr::null(), ptr::null(), 0);
    // SAFETY: the headers are the message's, which is borrowed; the three places are written before they are read, if at all.
    let error = unsafe { rd_kafka_header_get_all(all, at, &raw mut name, &raw mut value, &raw mut bytes) };
    if error != RD_KAFKA_RESP_ERR_NO_ERROR {
        return None;
    }
    // SAFETY: the name ends in NUL, and the value has so many bytes if it is there; both live as long as the message.
    let (name, value) = unsafe {
        let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), bytes));
        (CStr::from_ptr(name), value)
    };
    name.to_str().ok().map(|name| (name, value))
}

/// The offset after the last record of a partition, as the last answer of the brokers to whoever reads it said.
pub(super) fn end_as_read<C: ClientContext>(client: &Client<C>, topic: &CStr, partition: i32) -> Option<i64> {
    let (mut low, mut high) = (0, -1);
    // SAFETY: the handle lives as long as the client, which is borrowed; the name ends in NUL; the places are this function's.
    let error = unsafe {
        rd_kafka_get_watermark_offsets(client.native_ptr(), topic.as_ptr(), partition, &raw mut low, &raw mut high)
    };
    (error == RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}

/// Surely no broker has the record. To be asked of what a delivery report brings alone.
pub(super) fn is_unwritten(message: &BorrowedMessage<'_>) -> bool {
    // SAFETY: the report that the record is part of is borrowed, and librdkafka keeps the record as long as its report.
    let status = unsafe { rd_kafka_message_status(message.ptr()) };
    status == rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED
}
