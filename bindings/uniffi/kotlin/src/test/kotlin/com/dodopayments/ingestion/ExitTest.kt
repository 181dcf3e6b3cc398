package com.dodopayments.ingestion

import com.dodopayments.ingestion.native.NativeIngestion
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import org.junit.jupiter.api.extension.ExtendWith
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.net.InetAddress
import java.net.ServerSocket
import java.net.Socket
import java.net.URI
import java.nio.file.Path
import java.util.concurrent.TimeUnit
import kotlin.concurrent.thread
import kotlin.time.Duration
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds
import kotlin.time.TimeSource

/** The ends of programs. Each runs in a JVM of its own: see [main]. */
@ExtendWith(Meter::class)
class ExitTest {
    @TestFactory
    fun `the end of a program bills what an open client accepted`(): List<DynamicTest> =
        listOf("open", "batch", "cancelled", "refused", "meanwhile", "late").map { how ->
            dynamicTest(how) {
                toTheEnd(how, Meter.url)
                assertEquals(2, Meter.events("kt_exit_$how").size)
            }
        }

    @Test
    fun `what another hook tracks is accepted, and billed by this process or the next`(@TempDir spool: Path) {
        assertEquals("", toTheEnd("draining", Meter.url, spool.toString()))
        client("draining", Meter.url, spool = spool.toString()).use {
            while (Meter.events("kt_exit_draining").size < 1 + DRAINED) Thread.sleep(100)
        }
        assertEquals(1 + DRAINED, Meter.events("kt_exit_draining").size)
    }

    @Test
    fun `a dead server takes no time of the other clients at the end`() {
        ServerSocket(0, 64, InetAddress.getLoopbackAddress()).use { blackHole ->
            val started = TimeSource.Monotonic.markNow()
            val told = toTheEnd("outage", Meter.url, "http://127.0.0.1:${blackHole.localPort}")
            // One bound for all, not one for each.
            assertTrue(started.elapsedNow() < 20.seconds, "it took ${started.elapsedNow()}")
            assertEquals(DEAD, count("at exit: after 6s 1 calls are not billed yet", told), told)
        }
        assertEquals(1, Meter.events("kt_exit_outage").size)
    }

    @Test
    fun `a client whose close fails is closed, and nothing is waited for at the end`() {
        ServerSocket(0, 64, InetAddress.getLoopbackAddress()).use { blackHole ->
            val started = TimeSource.Monotonic.markNow()
            assertEquals("", toTheEnd("failed", "http://127.0.0.1:${blackHole.localPort}"))
            assertTrue(started.elapsedNow() < 30.seconds, "it took ${started.elapsedNow()}") // exit_timeout is 60 s
        }
    }

    @Test
    fun `a client that cannot be closed keeps no other from it`() {
        val told = toTheEnd("broken", Meter.url)
        assertEquals(BROKEN, count("object has already been destroyed", told), told)
        assertEquals(BROKEN, Meter.events("kt_exit_broken").size)
    }

    @Test
    fun `a coroutine without a dispatcher can wait`() {
        toTheEnd("unconfined", Meter.url)
        assertEquals(6, Meter.events("kt_exit_unconfined").size)
    }

    @Test
    fun `a coroutine without a dispatcher can wait for a dead server`() {
        ServerSocket(0, 64, InetAddress.getLoopbackAddress()).use { blackHole ->
            toTheEnd("unconfined-dead", "http://127.0.0.1:${blackHole.localPort}")
        }
    }

    private fun count(words: String, text: String) = text.windowed(words.length).count { it == words }

    /** Runs [main] to its end; returns what it wrote to standard error. */
    private fun toTheEnd(vararg arguments: String): String {
        val java = Path.of(System.getProperty("java.home"), "bin", "java").toString()
        val properties = listOf("java.class.path", "jna.library.path").map { "-D$it=${System.getProperty(it)}" }
        val told = File.createTempFile("exit", null)
        try {
            val process =
                ProcessBuilder(listOf(java) + properties + "com.dodopayments.ingestion.ExitTestKt" + arguments)
                    .redirectError(told)
                    .start()
            try {
                assertTrue(process.waitFor(ENDS_WITHIN_SECONDS, TimeUnit.SECONDS), "it did not end: ${told.readText()}")
            } finally {
                process.destroyForcibly()
            }
            assertEquals(0, process.exitValue(), told.readText())
            return told.readText()
        } finally {
            told.delete()
        }
    }

    private companion object {
        const val ENDS_WITHIN_SECONDS = 120L
    }
}

private const val DEAD = 10
private const val BROKEN = 5
private const val COLLECTIONS = 5
private const val DRAINED = 20

/** Is not collected before the end. */
private val open = mutableListOf<AutoCloseable>()

/** A program that leaves clients open, with calls that are not due before its end. */
fun main(arguments: Array<String>) {
    val (how, url) = arguments
    when (how) {
        "open" -> connect(how, url).trackApiCall("kt_exit_open")
        "batch" -> {
            open += client(how, url).createBatch(flushInterval = 300.seconds)
            repeat(2) { (open.single() as Batch).add("kt_exit_batch") }
            repeat(COLLECTIONS) {
                System.gc()
                Thread.sleep(100)
            }
        }
        "cancelled" -> {
            val gate = Gate(URI(url)) // shut, so that there is no end of the close but that it is cancelled
            val ingestion = connect(how, gate.url)
            runBlocking {
                val closing = launch(start = CoroutineStart.UNDISPATCHED) { ingestion.close(20.seconds) }
                gate.awaitKnock()
                closing.cancelAndJoin()
            }
            ingestion.trackApiCall("kt_exit_cancelled")
            gate.open()
        }
        "refused" -> {
            val ingestion = connect(how, url)
            assertThrows(IngestionException.Configuration::class.java) { runBlocking { ingestion.close((-1).seconds) } }
            ingestion.trackApiCall("kt_exit_refused")
        }
        "meanwhile" -> {
            val gate = Gate(URI(url)) // shut until the flush is under way
            val ingestion = connect(how, gate.url)
            atExit {
                gate.awaitKnock()
                ingestion.trackApiCall("kt_exit_meanwhile")
                gate.open()
            }
        }
        "late" ->
            atExit {
                val ingestion = connect(how, url)
                ingestion.trackApiCall("kt_exit_late")
                ingestion.close()
            }
        "draining" -> {
            val ingestion = connect(how, url, spool = arguments[2])
            atExit {
                while (ingestion.stats().getValue("billed") == 0L) Thread.sleep(10)
                repeat(DRAINED) {
                    Thread.sleep(50) // the work
                    ingestion.trackApiCall("kt_exit_draining")
                }
            }
        }
        "failed" -> {
            val ingestion = connect(how, url)
            assertThrows(IngestionException.Timeout::class.java) { runBlocking { ingestion.close(100.milliseconds) } }
        }
        "outage" -> {
            repeat(DEAD) { connect(how, arguments[2], "dead-$it") }
            connect(how, url, "live")
        }
        "broken" -> {
            repeat(BROKEN) {
                destroy(connect(how, url, "broken-$it"))
                connect(how, url, "whole-$it")
            }
        }
        "unconfined" ->
            runBlocking(Dispatchers.Unconfined) {
                for (wait in waits(how, connect(how, url), 60.seconds)) wait()
            }
        "unconfined-dead" ->
            runBlocking(Dispatchers.Unconfined) {
                for (wait in waits(how, connect(how, url), 500.milliseconds)) {
                    val thrown = runCatching { wait() }.exceptionOrNull()
                    assertTrue(thrown is IngestionException.Timeout, "$thrown")
                }
            }
        else -> error("no program is called $how")
    }
}

/** In a hook of the program's own, which runs beside the library's. */
private fun atExit(hook: () -> Unit) = Runtime.getRuntime().addShutdownHook(Thread(hook))

/** One of each kind, with a call to wait for. */
private fun waits(
    how: String,
    ingestion: Ingestion,
    timeout: Duration,
): List<suspend () -> Unit> {
    val batch = ingestion.createBatch()
    return listOf<suspend (Receipt) -> Unit>(
        { it.delivered(timeout) },
        { ingestion.flush(timeout) },
        { batch.flush(timeout) },
        { batch.cleanup(timeout) },
        { ingestion.close(timeout) },
    ).map { wait -> { wait(ingestion.trackApiCall("kt_exit_$how")) } }
}

private fun connect(
    how: String,
    url: String,
    account: String = "a",
    spool: String? = null,
): Ingestion {
    val ingestion = client(how, url, account, spool)
    open += ingestion
    ingestion.trackApiCall("kt_exit_$how")
    return ingestion
}

private fun client(
    how: String,
    url: String,
    account: String = "a",
    spool: String? = null,
): Ingestion {
    val options =
        mapOf(
            "durability" to if (spool == null) "memory" else "process",
            "spool_dir" to spool,
            "linger" to if (spool != null || how.startsWith("unconfined")) 100.milliseconds else 300.seconds,
            "exit_timeout" to if (how == "outage") 6.seconds else 60.seconds,
            "account" to "exit-$how-$account",
        )
    val config = IngestionConfig("dodo_test_kotlin", "test_mode", url, "api_call", options) { _, _ -> }
    return Ingestion(config)
}

/** A way to a server on which nothing passes until it is opened. */
private class Gate(
    private val server: URI,
) {
    private val listener = ServerSocket(0, 64, InetAddress.getLoopbackAddress())
    private val knocked = mutableListOf<Socket>()

    val url = "http://127.0.0.1:${listener.localPort}"

    fun awaitKnock() {
        knocked += listener.accept()
    }

    fun open() {
        thread(isDaemon = true) {
            knocked.forEach(::admit)
            while (true) admit(listener.accept())
        }
    }

    private fun admit(client: Socket) {
        val upstream = Socket(server.host, server.port)
        pass(client, upstream)
        pass(upstream, client)
    }

    private fun pass(from: Socket, to: Socket) {
        thread(isDaemon = true) {
            from.getInputStream().transferTo(to.getOutputStream())
            to.shutdownOutput()
        }
    }
}

/** What a client is left with when its library fails. */
private fun destroy(ingestion: Ingestion) {
    val native = Ingestion::class.java.getDeclaredField("native").apply { isAccessible = true }
    (native[ingestion] as NativeIngestion).destroy()
}
