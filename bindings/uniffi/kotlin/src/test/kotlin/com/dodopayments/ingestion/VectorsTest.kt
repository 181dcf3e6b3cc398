package com.dodopayments.ingestion

import com.google.gson.JsonElement
import com.google.gson.JsonNull
import com.google.gson.JsonObject
import com.google.gson.JsonParser
import com.google.gson.JsonPrimitive
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import org.junit.jupiter.api.extension.ExtendWith
import java.math.BigInteger
import java.nio.file.Files
import java.nio.file.Path
import java.time.Instant
import kotlin.time.Duration.Companion.seconds

@ExtendWith(Meter::class)
class VectorsTest {
    private val vectors: List<JsonObject> =
        JsonParser
            .parseString(Files.readString(Path.of(System.getProperty("vectors"), "events.json")))
            .asJsonArray
            .map(JsonElement::getAsJsonObject)
            .filterNot { it.has("json_only") }

    @TestFactory
    fun refused(): List<DynamicTest> =
        vectors.filter { it.has("error") }.map { vector ->
            dynamicTest(vector["name"].asString) {
                val thrown =
                    assertThrows(IngestionException::class.java) { Meter.connected { track(it, vector) } }
                assertEquals(vector["error"].asJsonObject["kind"].asString, thrown.kind)
                assertEquals(vector["error"].asJsonObject["field"].asString, thrown.field)
            }
        }

    @Test
    fun accepted() {
        val accepted = vectors.filter { it.has("stored") }
        Meter.connected { ingestion ->
            for (vector in accepted) assertEquals(idOf(vector), track(ingestion, vector).eventId)
            ingestion.blockingFlush(120.seconds)
        }
        for (vector in accepted) {
            val billed = Meter.event(idOf(vector))
            val expected = JsonParser.parseString(vector["stored"].asString).asJsonObject
            if (vector.has("restamped")) billed["metadata"].asJsonObject.remove("original_timestamp")
            if (!expected.has("metadata")) expected.add("metadata", JsonNull.INSTANCE)
            for ((name, value) in expected.entrySet()) {
                assertEquals(exact(value), exact(billed[name]), "${vector["name"]}: $name")
            }
        }
    }

    private fun idOf(vector: JsonObject) = vector["input"].asJsonObject["event_id"].asString

    private fun track(
        ingestion: Ingestion,
        vector: JsonObject,
    ): Receipt {
        val input = vector["input"].asJsonObject
        return ingestion.trackApiCall(
            customerId = input["customer_id"].asString,
            metadata = input["metadata"]?.asJsonObject?.asMap()?.mapValues { (_, value) -> kotlin(value) }.orEmpty(),
            eventId = input["event_id"].asString,
            eventName = input["event_name"].asString,
            timestamp = vector["timestamp_offset_seconds"]?.let { Instant.now().plusSeconds(it.asLong) },
        )
    }

    private fun kotlin(value: JsonElement): Any? =
        when {
            value.isJsonNull -> null
            value is JsonPrimitive -> kotlin(value)
            else -> value
        }

    private fun kotlin(value: JsonPrimitive): Any =
        when {
            value.isString -> value.asString
            value.isBoolean -> value.asBoolean
            value.asString.any { it in ".eE" } -> value.asDouble
            else -> value.asBigInteger.let { if (it.bitLength() < Long.SIZE_BITS) it.toLong() else it }
        }

    /** JSON with numbers that are equal only if they are of one type. */
    private fun exact(value: JsonElement): Any? =
        when (value) {
            is JsonObject -> value.asMap().mapValues { (_, each) -> exact(each) }
            is JsonPrimitive -> kotlin(value).let { if (it is BigInteger) it.toString() else it }
            else -> null
        }
}
