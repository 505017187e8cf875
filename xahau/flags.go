package xahau

// Flags of transactions, under the ledger's own names.
const (
	TfFullyCanonicalSig uint32 = 0x80000000

	// Payment
	TfNoRippleDirect uint32 = 0x00010000
	TfPartialPayment uint32 = 0x00020000
	TfLimitQuality   uint32 = 0x00040000

	// AccountSet
	TfRequireDestTag  uint32 = 0x00010000
	TfOptionalDestTag uint32 = 0x00020000
	TfRequireAuth     uint32 = 0x00040000
	TfOptionalAuth    uint32 = 0x00080000
	TfDisallowXRP     uint32 = 0x00100000
	TfAllowXRP        uint32 = 0x00200000

	// TrustSet
	TfSetfAuth      uint32 = 0x00010000
	TfSetNoRipple   uint32 = 0x00020000
	TfClearNoRipple uint32 = 0x00040000
	TfSetFreeze     uint32 = 0x00100000
	TfClearFreeze   uint32 = 0x00200000

	// OfferCreate
	TfPassive           uint32 = 0x00010000
	TfImmediateOrCancel uint32 = 0x00020000
	TfFillOrKill        uint32 = 0x00040000
	TfSell              uint32 = 0x00080000

	// PaymentChannelClaim
	TfRenew uint32 = 0x00010000
	TfClose uint32 = 0x00020000

	// URITokenMint
	TfBurnable uint32 = 0x00000001

	// ClaimReward
	TfOptOut uint32 = 0x00000001
)

// Values of AccountSet's SetFlag and ClearFlag.
const (
	AsfRequireDest                  uint32 = 1
	AsfRequireAuth                  uint32 = 2
	AsfDisallowXRP                  uint32 = 3
	AsfDisableMaster                uint32 = 4
	AsfAccountTxnID                 uint32 = 5
	AsfNoFreeze                     uint32 = 6
	AsfGlobalFreeze                 uint32 = 7
	AsfDefaultRipple                uint32 = 8
	AsfDepositAuth                  uint32 = 9
	AsfAuthorizedNFTokenMinter      uint32 = 10
	AsfTshCollect                   uint32 = 11
	AsfDisallowIncomingNFTokenOffer uint32 = 12
	AsfDisallowIncomingCheck        uint32 = 13
	AsfDisallowIncomingPayChan      uint32 = 14
	AsfDisallowIncomingTrustline    uint32 = 15
	AsfDisallowIncomingRemit        uint32 = 16
)

// Flags of the elements of SetHook.
const (
	HsfOverride uint32 = 1
	HsfNSDelete uint32 = 2
	HsfCollect  uint32 = 4
)

// Flags of ledger entries.
const (
	// AccountRoot
	LsfPasswordSpent                uint32 = 0x00010000
	LsfRequireDestTag               uint32 = 0x00020000
	LsfRequireAuth                  uint32 = 0x00040000
	LsfDisallowXRP                  uint32 = 0x00080000
	LsfDisableMaster                uint32 = 0x00100000
	LsfNoFreeze                     uint32 = 0x00200000
	LsfGlobalFreeze                 uint32 = 0x00400000
	LsfDefaultRipple                uint32 = 0x00800000
	LsfDepositAuth                  uint32 = 0x01000000
	LsfTshCollect                   uint32 = 0x02000000
	LsfDisallowIncomingNFTokenOffer uint32 = 0x04000000
	LsfDisallowIncomingCheck        uint32 = 0x08000000
	LsfDisallowIncomingPayChan      uint32 = 0x10000000
	LsfDisallowIncomingTrustline    uint32 = 0x20000000
	LsfURITokenIssuer               uint32 = 0x40000000
	LsfDisallowIncomingRemit        uint32 = 0x80000000

	// Offer
	LsfPassive uint32 = 0x00010000
	LsfSell    uint32 = 0x00020000

	// RippleState
	LsfLowReserve   uint32 = 0x00010000
	LsfHighReserve  uint32 = 0x00020000
	LsfLowAuth      uint32 = 0x00040000
	LsfHighAuth     uint32 = 0x00080000
	LsfLowNoRipple  uint32 = 0x00100000
	LsfHighNoRipple uint32 = 0x00200000
	LsfLowFreeze    uint32 = 0x00400000
	LsfHighFreeze   uint32 = 0x00800000

	// SignerList
	LsfOneOwnerCount uint32 = 0x00010000

	// DirectoryNode
	LsfNFTokenBuyOffers  uint32 = 0x00000001
	LsfNFTokenSellOffers uint32 = 0x00000002
	LsfEmittedDir        uint32 = 0x00000004

	// URIToken
	LsfBurnable uint32 = 0x00000001
)
