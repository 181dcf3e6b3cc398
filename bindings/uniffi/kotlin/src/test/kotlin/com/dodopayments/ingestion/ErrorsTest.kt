package com.dodopayments.ingestion

import com.dodopayments.ingestion.native.Failure
import com.dodopayments.ingestion.native.errorKinds
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import org.junit.jupiter.api.extension.ExtendWith
import java.io.File
import java.lang.reflect.Constructor
import java.lang.reflect.Executable
import java.math.BigDecimal
import java.math.BigInteger
import kotlin.time.Duration
import kotlin.time.Duration.Companion.hours
import kotlin.time.Duration.Companion.seconds

@ExtendWith(Meter::class)
class ErrorsTest {
    @Test
    fun `every kind has a class`() {
        val errors = errorKinds().map { IngestionException.of(Failure.Core(it, "words", null, null, false)) }
        assertEquals(errorKinds(), errors.map { it.kind })
        assertEquals(errors.size, errors.map { it.javaClass }.toSet().size)
    }

    @Test
    fun `an error keeps its details`() {
        val error = IngestionException.of(Failure.Core("too_large", "words", "metadata.x", 413u, true))
        assertEquals(listOf("too_large", "words", "metadata.x", 413), listOf(error.kind, error.message, error.field, error.status))
        assertEquals(true, error.mayBeBilled)
    }

    @Test
    fun `Java may catch what is thrown`() {
        val open = Ingestion::class.java
        val callable = listOf<Executable>(*open.constructors, *IngestionConfig::class.java.constructors, *open.methods)
        for (each in callable.filter { !it.isSynthetic && (it is Constructor<*> || it.name in FOR_JAVA) }) {
            assertTrue(IngestionException::class.java in each.exceptionTypes, "$each")
        }
    }

    @TestFactory
    fun `options that are refused`(): List<DynamicTest> =
        listOf(
            mapOf("event_name" to "api_call", "lingr" to 1) to "lingr",
            mapOf("event_name" to "api_call", "environment" to "staging") to "environment",
            mapOf("event_name" to "api_call", "api_key" to "another") to "api_key",
            mapOf("event_name" to "api_call", "linger" to 5000) to "linger",
            mapOf("event_name" to "api_call", "linger" to 1.hours) to "linger",
            mapOf("event_name" to "api_call", "linger" to (-1).seconds) to "linger",
            mapOf("event_name" to "api_call", "spool_dir" to emptyList<String>()) to "spool_dir",
            emptyMap<String, Any>() to "event_name",
        ).map { (options, field) ->
            dynamicTest("$options") {
                val thrown =
                    assertThrows(IngestionException.Configuration::class.java) {
                        Ingestion(IngestionConfig(apiKey = "k", options = options))
                    }
                assertEquals("configuration", thrown.kind)
                assertEquals(field, thrown.field)
            }
        }

    @TestFactory
    fun `batches that are refused`(): List<DynamicTest> =
        listOf<Triple<Int?, Duration?, String>>(
            Triple(null, 5000.seconds, "flush_interval"),
            Triple(null, (-1).seconds, "flush_interval"),
            Triple(0, null, "max_size"),
            Triple(1001, null, "max_size"),
            Triple(-1, null, "max_size"),
        ).map { (size, interval, field) ->
            dynamicTest("$size, $interval") {
                val thrown =
                    assertThrows(IngestionException::class.java) { Meter.connected { it.createBatch(size, interval) } }
                assertEquals(field, thrown.field)
            }
        }

    @TestFactory
    fun `values that are refused`(): List<DynamicTest> =
        listOf(
            Double.NaN,
            Double.POSITIVE_INFINITY,
            Float.NaN,
            Float.NEGATIVE_INFINITY,
            Float.POSITIVE_INFINITY,
            ULong.MAX_VALUE,
            BigInteger.TWO.pow(63),
            BigDecimal.ONE,
            listOf<Any>(),
            mapOf<String, Any>(),
            'c',
            "\ud800",
        ).map { value ->
            dynamicTest("$value") {
                val thrown =
                    assertThrows(IngestionException.Validation::class.java) {
                        Meter.connected { it.trackApiCall("cus_1", mapOf("key" to value)) }
                    }
                assertEquals("validation", thrown.kind)
                assertEquals("metadata.key", thrown.field)
            }
        }

    @TestFactory
    fun `options with a lone surrogate`(): List<DynamicTest> =
        listOf<Pair<String, () -> IngestionConfig>>(
            "api_key" to { IngestionConfig(apiKey = HALF) },
            "environment" to { IngestionConfig(environment = HALF) },
            "base_url" to { IngestionConfig(baseUrl = HALF) },
            "event_name" to { IngestionConfig(eventName = HALF) },
            "account" to { IngestionConfig(options = mapOf("account" to HALF)) },
            "spool_dir" to { IngestionConfig(options = mapOf("spool_dir" to File(HALF))) },
            HALF to { IngestionConfig(options = mapOf(HALF to 1)) },
        ).map { (option, config) ->
            dynamicTest(option) {
                val thrown = assertThrows(IngestionException.Configuration::class.java) { Ingestion(config()) }
                assertEquals(option, thrown.field)
                assertEquals("$option: holds a lone surrogate", thrown.message)
            }
        }

    private class Arguments(
        val customerId: String = "cus_1",
        val metadata: Map<String, Any?> = emptyMap(),
        val eventId: String? = null,
        val eventName: String? = null,
    )

    @TestFactory
    fun `calls with a lone surrogate`(): List<DynamicTest> =
        listOf(
            "customer_id" to Arguments(customerId = HALF),
            "metadata" to Arguments(metadata = mapOf(HALF to 1)),
            "metadata.key" to Arguments(metadata = mapOf("key" to HALF)),
            "event_id" to Arguments(eventId = HALF),
            "event_name" to Arguments(eventName = HALF),
        ).map { (field, given) ->
            dynamicTest(field) {
                Meter.connected { ingestion ->
                    val track: () -> Unit = {
                        ingestion.trackApiCall(given.customerId, given.metadata, given.eventId, given.eventName)
                    }
                    val add = {
                        ingestion.createBatch().add(given.customerId, given.metadata, given.eventId, given.eventName)
                    }
                    for (refused in listOf(track, add)) {
                        val thrown = assertThrows(IngestionException.Validation::class.java) { refused() }
                        assertEquals(field, thrown.field)
                    }
                }
            }
        }

    @Test
    fun `whole surrogate pairs are taken`() {
        val smile = "\ud83d\ude00"
        Meter.connected { ingestion ->
            val receipt = ingestion.trackApiCall(smile, mapOf(smile to smile), smile, smile)
            assertEquals(smile, receipt.eventId)
        }
    }

    @Test
    fun `a batch refuses what a call refuses`() {
        val thrown =
            assertThrows(IngestionException.Validation::class.java) { Meter.connected { it.createBatch().add("") } }
        assertEquals("customer_id", thrown.field)
    }

    private companion object {
        const val HALF = "half_\ud800"
        val FOR_JAVA = setOf("trackApiCall", "close")
    }
}
