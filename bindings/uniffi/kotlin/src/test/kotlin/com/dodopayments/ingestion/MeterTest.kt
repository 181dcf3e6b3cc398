package com.dodopayments.ingestion

import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.extension.ExtendWith
import java.net.InetAddress
import java.net.ServerSocket
import java.util.concurrent.CopyOnWriteArrayList
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
    fun `a Float is billed as it is shown`() {
        val shown =
            listOf(
                0.1f to "0.1",
                -0.1f to "-0.1",
                0.5f to "0.5",
                1.1f to "1.1",
                1e-7f to "1.0E-7",
                16_777_216f to "1.6777216E7",
                Float.MAX_VALUE to "3.4028235E38",
            )
        Meter.connected { ingestion ->
            for ((value, text) in shown) ingestion.trackApiCall("kt_float", mapOf("n" to value), eventId = "kt-float-$text")
            ingestion.blockingFlush(120.seconds)
        }
        for ((_, text) in shown) {
            assertEquals(text.toDouble(), Meter.event("kt-float-$text")["metadata"].asJsonObject["n"].asDouble)
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

    @Test
    fun `a call of a batch that cannot be converted is counted and told`() {
        val alarms =
            alarmsOf("half") { ingestion ->
                try {
                    createBatch(ingestion).add("cus_1", eventId = "\ud800")
                } finally {
                    assertEquals(1, ingestion.stats().getValue("invalid"))
                }
            }
        assertEquals("event_id: holds a lone surrogate", alarms.toMap().getValue("invalid"))
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
