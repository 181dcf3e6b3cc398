package com.dodopayments.ingestion

import com.dodopayments.ingestion.native.Call
import com.dodopayments.ingestion.native.Pair as NativePair
import com.dodopayments.ingestion.native.PairValue
import com.dodopayments.ingestion.native.Setting
import com.dodopayments.ingestion.native.SettingValue
import java.io.File
import java.math.BigInteger
import java.nio.file.Path
import java.time.Instant
import kotlin.time.Duration
import kotlin.time.toJavaDuration
import java.time.Duration as JavaDuration

/** An option, as it is, for the core to judge. */
internal fun setting(name: String, value: Any): Setting =
    Setting(
        text("configuration", name, name),
        when (value) {
            is String -> SettingValue.Text(text("configuration", name, value))
            is Boolean -> SettingValue.Flag(value)
            is Int -> SettingValue.Integer(value.toLong())
            is Long -> SettingValue.Integer(value)
            is Float -> SettingValue.Number(shown(value))
            is Double -> SettingValue.Number(value)
            is Duration -> SettingValue.Length(length(name, value))
            is JavaDuration -> SettingValue.Length(length(name, value))
            is Path, is File -> SettingValue.Text(text("configuration", name, value.toString()))
            else -> throw unconvertible("configuration", name, "a ${typeName(value)} is not an option's value")
        },
    )

internal fun length(name: String, value: Duration): JavaDuration = length(name, value.toJavaDuration())

internal fun length(name: String, value: JavaDuration): JavaDuration {
    if (value.isNegative) throw unconvertible("configuration", name, "$value is less than nothing")
    return value
}

internal fun call(
    customerId: String,
    metadata: Map<String, Any?>,
    eventId: String?,
    eventName: String?,
    timestamp: Instant?,
): Call =
    Call(
        text("validation", "customer_id", customerId),
        pairs(metadata),
        eventId?.let { text("validation", "event_id", it) },
        eventName?.let { text("validation", "event_name", it) },
        timestamp,
    )

/** A map may be changed while it is read, and one of Java's may have a null for a key. */
private fun pairs(metadata: Map<out String?, Any?>): List<NativePair> =
    try {
        metadata.mapNotNull { (key, value) -> value?.let { pair(key, it) } }
    } catch (failure: RuntimeException) {
        throw unconvertible("validation", "metadata", "reading it throws ${failure.javaClass.name}").apply { addSuppressed(failure) }
    }

private fun pair(key: String?, value: Any): NativePair {
    if (key == null) throw unconvertible("validation", "metadata", "a key is null")
    if (!isUnicode(key)) throw unconvertible("validation", "metadata", "a key holds a lone surrogate")
    return NativePair(key, pairValue(value))
}

private fun pairValue(value: Any): PairValue =
    when (value) {
        is String -> if (isUnicode(value)) PairValue.Text(value) else PairValue.Unsupported("string with a lone surrogate")
        is Boolean -> PairValue.Flag(value)
        is Byte, is Short, is Int, is Long -> PairValue.Integer((value as Number).toLong())
        is UByte -> PairValue.Integer(value.toLong())
        is UShort -> PairValue.Integer(value.toLong())
        is UInt -> PairValue.Integer(value.toLong())
        is ULong -> pairValue(BigInteger(value.toString()))
        is Float -> PairValue.Number(shown(value))
        is Double -> PairValue.Number(value)
        is BigInteger ->
            if (value.bitLength() < Long.SIZE_BITS) {
                PairValue.Integer(value.toLong())
            } else {
                PairValue.Unsupported("integer of more than 64 bits")
            }
        else -> PairValue.Unsupported(typeName(value))
    }

/**
 * The number that a fraction is shown as: 0.1f is 0.1, and not 0.10000000149011612, which is its exact value. A large whole
 * number is shown with fewer digits than it has.
 */
private fun shown(value: Float): Double = if (value % 1 == 0f) value.toDouble() else value.toString().toDouble()

private fun text(kind: String, field: String, value: String): String =
    if (isUnicode(value)) value else throw unconvertible(kind, field, "holds a lone surrogate")

private fun isUnicode(text: String): Boolean = text.none(Char::isSurrogate) || Charsets.UTF_8.newEncoder().canEncode(text)

private fun typeName(value: Any): String = value::class.simpleName ?: "object"
