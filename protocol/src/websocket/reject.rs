//! A client's mistakes in framing: a closed enum, and what each is called on the wire and in metrics.

use crate::close;

/// Why a frame closes its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameReject {
    /// A client must mask.
    Unmasked,
    /// A reserved bit that no extension gives a meaning here.
    ReservedBits,
    /// Opcode 3–7 or 11–15.
    UnknownOpcode,
    /// A control frame without FIN.
    FragmentedControl,
    /// A control frame over 125 bytes.
    ControlTooLong,
    /// A continuation without a message begun.
    ContinuationWithoutStart,
    /// A new message before the last one ended.
    DataInsideMessage,
    /// A length in more bytes than it needs.
    LengthNotMinimal,
    /// A 64-bit length with its top bit set.
    LengthTopBit,
    /// A close frame with one byte of payload.
    ClosePayload,
    /// A close code that must not be sent.
    CloseCode,
    /// A close reason that is not UTF-8.
    CloseReasonNotUtf8,
    /// Text that is not UTF-8.
    TextNotUtf8,
    /// A message over [`super::frame::FrameLimits::message_bytes_max`].
    MessageTooBig,
    /// A message of more frames than [`super::frame::FrameLimits::fragments_max`].
    TooManyFragments,
    /// A deflated message that is none.
    NotDeflate,
    /// A deflated message of more blocks than [`super::deflate::BLOCKS_MAX`].
    TooManyBlocks,
    /// Bytes after a close frame, or after a reject.
    AfterClose,
}

impl FrameReject {
    /// Every reject, in the order of their discriminants.
    pub const ALL: [Self; 18] = [
        Self::Unmasked,
        Self::ReservedBits,
        Self::UnknownOpcode,
        Self::FragmentedControl,
        Self::ControlTooLong,
        Self::ContinuationWithoutStart,
        Self::DataInsideMessage,
        Self::LengthNotMinimal,
        Self::LengthTopBit,
        Self::ClosePayload,
        Self::CloseCode,
        Self::CloseReasonNotUtf8,
        Self::TextNotUtf8,
        Self::MessageTooBig,
        Self::TooManyFragments,
        Self::NotDeflate,
        Self::TooManyBlocks,
        Self::AfterClose,
    ];

    /// What the client is told.
    pub const fn close_code(self) -> u16 {
        match self {
            Self::Unmasked
            | Self::ReservedBits
            | Self::UnknownOpcode
            | Self::FragmentedControl
            | Self::ControlTooLong
            | Self::ContinuationWithoutStart
            | Self::DataInsideMessage
            | Self::LengthNotMinimal
            | Self::LengthTopBit
            | Self::ClosePayload
            | Self::CloseCode
            | Self::AfterClose => close::PROTOCOL,
            Self::CloseReasonNotUtf8 | Self::TextNotUtf8 | Self::NotDeflate => close::BAD_UTF8,
            Self::MessageTooBig | Self::TooManyFragments | Self::TooManyBlocks => close::TOO_BIG,
        }
    }

    /// Name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unmasked => "frame-unmasked",
            Self::ReservedBits => "frame-reserved-bits",
            Self::UnknownOpcode => "frame-unknown-opcode",
            Self::FragmentedControl => "frame-fragmented-control",
            Self::ControlTooLong => "frame-control-too-long",
            Self::ContinuationWithoutStart => "frame-continuation-without-start",
            Self::DataInsideMessage => "frame-data-inside-message",
            Self::LengthNotMinimal => "frame-length-not-minimal",
            Self::LengthTopBit => "frame-length-top-bit",
            Self::ClosePayload => "frame-close-payload",
            Self::CloseCode => "frame-close-code",
            Self::CloseReasonNotUtf8 => "frame-close-reason-not-utf8",
            Self::TextNotUtf8 => "frame-text-not-utf8",
            Self::MessageTooBig => "frame-message-too-big",
            Self::TooManyFragments => "frame-too-many-fragments",
            Self::NotDeflate => "frame-not-deflate",
            Self::TooManyBlocks => "frame-too-many-blocks",
            Self::AfterClose => "frame-after-close",
        }
    }
}
