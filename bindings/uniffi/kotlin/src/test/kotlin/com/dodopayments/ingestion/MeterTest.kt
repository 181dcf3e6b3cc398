package com.dodopayments.ingestion

import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import org.junit.jupiter.api.extension.ExtendWith
import java.net.InetAddress
import java.net.ServerSocket
import java.util.concurrent.CopyOnWriteArrayList
import java.util.concurrent.FutureTask
import java.util.logging.Handler
import java.util.logging.Level
import java.util.logging.LogRecord
import java.util.logging.Logger
import kotlin.concurrent.thread
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds

@ExtendWith(Meter::class)
class MeterTest {
    @Test
    fun `every call is billed once`() {
        Meter.connected { ingestion ->
            ingestion.createBatch(maxSize = 100, flushInterval = 5.seconds).use { batch ->
                repeat(BATCHED) { batch.add("kt_batch", mapOf("endpoint" to "/v1/users", "n" to it)) }
            }
            repeat(SINGLE) { ingestion.trackApiCall("kt_single", mapOf("endpoint" to "/v1/orders", "n" to it)) }
            ingestion.blockingFlush(120.seconds)

            assertEquals((0 until BATCHED).toList(), numbers("kt_batch"))
            assertEquals((0 until SINGLE).toList(), numbers("kt_single"))
            val customers = Meter.get("/_dev/bill")["customers"].asJsonArray.map { it.asJsonObject }
            val calls = customers.associate { it["customer_id"].asString to it["calls"].asInt }
            assertEquals(BATCHED, calls["kt_batch"])
            assertEquals(SINGLE, calls["kt_single"])
            val stats = ingestion.stats()
            assertTrue(stats.getValue("accepted") >= BATCHED + SINGLE)
            assertEquals(0, stats.getValue("spooled"))
            assertEquals(0, stats.getValue("dead_lettered"))
        }
    }

    private fun numbers(customerId: String) =
        Meter.events(customerId).map { it["metadata"].asJsonObject["n"].asInt }.sorted()

    @Test
    fun `a receipt can be waited for`() {
        Meter.connected("linger" to 100.milliseconds) { ingestion ->
            val receipt = ingestion.trackApiCall("kt_receipt", eventId = "kt-mine")
            receipt.blockingDelivered(120.seconds)
            assertEquals("kt-mine", receipt.eventId)
        }
        assertEquals("kt_receipt", Meter.event("kt-mine")["customer_id"].asString)
    }

    @Test
    fun `receipts can be awaited`() {
        Meter.connected("linger" to 100.milliseconds) { ingestion ->
            val receipts = List(100) { ingestion.trackApiCall("kt_await") }
            runBlocking { receipts.map { async { it.delivered(120.seconds) } }.awaitAll() }
        }
        assertEquals(100, Meter.events("kt_await").size)
    }

    @Test
    fun `a wait that takes too long`() {
        ServerSocket(0, 64, InetAddress.getLoopbackAddress()).use { blackHole ->
            val url = "http://127.0.0.1:${blackHole.localPort}"
            Meter.connected("base_url" to url, "account" to "black-hole", "linger" to 0.1) { ingestion ->
                val receipt = ingestion.trackApiCall("kt_1")
                val waits =
                    listOf<() -> Unit>(
                        { receipt.blockingDelivered(200.milliseconds) },
                        { runBlocking { receipt.delivered(200.milliseconds) } },
                        { ingestion.blockingFlush(200.milliseconds) },
                        { runBlocking { ingestion.flush(200.milliseconds) } },
                    )
                for (wait in waits) {
                    val thrown = assertThrows(IngestionException.Timeout::class.java) { wait() }
                    assertEquals("timeout", thrown.kind)
                }
            }
        }
    }

    @Test
    fun `a Float is billed as it is shown, and whole as it is`() {
        val billed =
            listOf(
                0.1f to 0.1,
                -0.1f to -0.1,
                0.5f to 0.5,
                1.1f to 1.1,
                1e-7f to 1.0E-7,
                16_777_216f to 16_777_216.0,
                4_294_967_296f to 4_294_967_296.0,
                Float.MAX_VALUE to Float.MAX_VALUE.toDouble(),
            )
        Meter.connected { ingestion ->
            for ((value, _) in billed) ingestion.trackApiCall("kt_float", mapOf("n" to value), eventId = "kt-float-$value")
            ingestion.blockingFlush(120.seconds)
        }
        for ((value, expected) in billed) {
            assertEquals(expected, Meter.event("kt-float-$value")["metadata"].asJsonObject["n"].asDouble)
        }
    }

    @Test
    fun `a blocking wait can be interrupted`() {
        ServerSocket(0, 64, InetAddress.getLoopbackAddress()).use { blackHole ->
            val url = "http://127.0.0.1:${blackHole.localPort}"
            Meter.connected("base_url" to url, "account" to "interrupted") { ingestion ->
                val receipt = ingestion.trackApiCall("kt_1")
                val batch = ingestion.createBatch()
                val waits =
                    listOf<() -> Unit>(
                        { receipt.blockingDelivered(60.seconds) },
                        { batch.blockingFlush(60.seconds) },
                        { batch.blockingCleanup(60.seconds) },
                        { ingestion.blockingFlush(60.seconds) },
                        { ingestion.blockingClose(60.seconds) },
                    )
                for (wait in waits) {
                    val interrupted = FutureTask { assertThrows(InterruptedException::class.java) { wait() } }
                    val thread = thread { interrupted.run() }
                    Thread.sleep(100)
                    thread.interrupt()
                    interrupted.get()
                }
                ingestion.trackApiCall("kt_1") // it is still open
            }
        }
    }

    @Test
    fun `a block that fails is left within exit_timeout`() {
        ServerSocket(0, 64, InetAddress.getLoopbackAddress()).use { blackHole ->
            val url = "http://127.0.0.1:${blackHole.localPort}"
            val ingestion = Meter.connect("base_url" to url, "account" to "left", "exit_timeout" to 100.milliseconds)
            val thrown =
                assertThrows(IllegalStateException::class.java) {
                    ingestion.use {
                        createBatch(it).use { batch ->
                            batch.add("kt_1")
                            error("the program's own")
                        }
                    }
                }
            assertEquals("the program's own", thrown.message)
            val told = thrown.suppressed.map { it.message.orEmpty().substringBefore(" 1 calls") }
            assertEquals(listOf("after 100ms", "after 100ms"), told)
        }
    }

    @Test
    fun `a block that succeeds is waited for, however it is left`() {
        val ingestion = Meter.connect("account" to "succeeded", "exit_timeout" to 0.seconds)
        assertEquals("kt_succeeded", leaving(ingestion))
        assertEquals(1, Meter.events("kt_succeeded").size)
        assertThrows(IngestionException.Closed::class.java) { ingestion.trackApiCall("kt_1") }
    }

    private fun leaving(ingestion: Ingestion): String {
        ingestion.use {
            it.trackApiCall("kt_succeeded")
            return "kt_succeeded"
        }
    }

    @Test
    fun `a closed client refuses`() {
        val ingestion = Meter.connect("account" to "closed")
        ingestion.close()
        assertThrows(IngestionException.Closed::class.java) { ingestion.trackApiCall("kt_1") }
    }

    @Test
    fun `alarms are told`() {
        val alarms = alarmsOf("alarms") { createBatch(it).add("") }
        assertTrue("customer_id" in alarms.toMap().getValue("invalid"))
    }

    @TestFactory
    fun `a call that cannot be converted is counted and told`(): List<DynamicTest> {
        val nullKey = mapOf<String?, Any?>(null to 1)
        return listOf<Triple<String, String, (Ingestion) -> Unit>>(
            Triple("call", "event_id: holds a lone surrogate") { it.trackApiCall("cus_1", eventId = "\ud800") },
            Triple("batch", "event_id: holds a lone surrogate") { createBatch(it).add("cus_1", eventId = "\ud800") },
            Triple("null-key", "metadata: a key is null") { it.trackApiCall("cus_1", asOfJava(nullKey)) },
            Triple("changed", "metadata: reading it throws ${ConcurrentModificationException::class.java.name}") {
                it.trackApiCall("cus_1", Changed)
            },
        ).map { (account, told, call) ->
            dynamicTest(account) {
                val alarms =
                    alarmsOf("unconvertible-$account") { ingestion ->
                        try {
                            call(ingestion)
                        } finally {
                            assertEquals(1, ingestion.stats().getValue("invalid"))
                        }
                    }
                assertEquals(told, alarms.toMap().getValue("invalid"))
            }
        }
    }

    @Suppress("UNCHECKED_CAST")
    private fun asOfJava(map: Map<String?, Any?>) = map as Map<String, Any?>

    /** A map that another thread changes while it is read. */
    private object Changed : AbstractMap<String, Any?>() {
        override val entries: Set<Map.Entry<String, Any?>> get() = throw ConcurrentModificationException()
    }

    @Test
    fun `an alarm at which its listener fails is logged`() {
        val logged = CopyOnWriteArrayList<LogRecord>()
        val handler =
            object : Handler() {
                override fun publish(record: LogRecord) {
                    logged += record
                }

                override fun flush() = Unit

                override fun close() = Unit
            }
        val logger = Logger.getLogger("com.dodopayments.ingestion")
        logger.addHandler(handler)
        logger.useParentHandlers = false
        try {
            val options = mapOf("durability" to "memory", "account" to "failing")
            val config = IngestionConfig("k", "test_mode", Meter.url, "api_call", options) { _, _ -> error("the listener's own") }
            Ingestion(config).use { assertThrows(IngestionException.Validation::class.java) { it.trackApiCall("") } }
        } finally {
            logger.removeHandler(handler)
            logger.useParentHandlers = true
        }
        val failures = logged.filter { it.level == Level.WARNING && it.thrown?.message == "the listener's own" }
        assertTrue(failures.any { "told invalid: customer_id" in it.message }, "${logged.map { it.message }}")
    }

    /** What is told of a call that is not valid. */
    private fun alarmsOf(
        account: String,
        call: (Ingestion) -> Unit,
    ): List<Pair<String, String>> {
        val alarms = CopyOnWriteArrayList<Pair<String, String>>()
        val options = mapOf("durability" to "memory", "account" to account)
        val config =
            IngestionConfig("k", "test_mode", Meter.url, "api_call", options) { kind, message -> alarms += kind to message }
        Ingestion(config).use { assertThrows(IngestionException.Validation::class.java) { call(it) } }
        return alarms
    }

    private companion object {
        const val BATCHED = 2000
        const val SINGLE = 500
    }
}
