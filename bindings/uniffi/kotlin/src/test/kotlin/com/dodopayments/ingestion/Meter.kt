package com.dodopayments.ingestion

import com.google.gson.JsonElement
import com.google.gson.JsonObject
import com.google.gson.JsonParser
import org.junit.jupiter.api.extension.BeforeAllCallback
import org.junit.jupiter.api.extension.ExtensionContext
import java.net.URI
import java.net.URLEncoder
import java.net.http.HttpClient
import java.net.http.HttpRequest
import java.net.http.HttpResponse.BodyHandlers
import java.util.concurrent.TimeUnit
import kotlin.time.Duration
import kotlin.time.Duration.Companion.seconds

/** A running `dodometer serve`, one for all tests. */
class Meter : BeforeAllCallback {
    override fun beforeAll(context: ExtensionContext) {
        url
    }

    companion object {
        private const val READY_WITHIN_SECONDS = 120L
        private val http = HttpClient.newHttpClient()

        val url: String by lazy { start() }

        private fun start(): String {
            val binary =
                System.getenv("DODOMETER_BIN")
                    ?: error("set DODOMETER_BIN to the dodometer binary: these tests bill to a real meter")
            val process =
                ProcessBuilder(binary, "serve", "--listen", "127.0.0.1:0", "--data", ":memory:", "--json")
                    .redirectError(ProcessBuilder.Redirect.INHERIT)
                    .start()
            Runtime.getRuntime().addShutdownHook(Thread { process.destroy() })
            val watchdog =
                Thread {
                    try {
                        TimeUnit.SECONDS.sleep(READY_WITHIN_SECONDS)
                        process.destroyForcibly()
                    } catch (_: InterruptedException) {
                        // It was ready in time.
                    }
                }
            watchdog.isDaemon = true
            watchdog.start()
            val line = process.inputReader().readLine() ?: error("$binary said nothing within $READY_WITHIN_SECONDS s")
            watchdog.interrupt()
            return JsonParser.parseString(line).asJsonObject["url"].asString
        }

        fun get(path: String): JsonObject {
            val request =
                HttpRequest.newBuilder(URI.create(url + path)).header("Authorization", "Bearer test").build()
            val response = http.send(request, BodyHandlers.ofString())
            check(response.statusCode() == 200) { "GET $path: ${response.statusCode()} ${response.body()}" }
            return JsonParser.parseString(response.body()).asJsonObject
        }

        fun event(id: String): JsonObject = get("/events/" + encoded(id))

        /** All events of a customer, page by page. */
        fun events(customerId: String): List<JsonObject> {
            val found = mutableListOf<JsonObject>()
            while (true) {
                val page = found.size / 1000
                val items = get("/events?customer_id=${encoded(customerId)}&page_size=1000&page_number=$page")["items"]
                found += items.asJsonArray.map(JsonElement::getAsJsonObject)
                if (items.asJsonArray.size() < 1000) return found
            }
        }

        private fun encoded(text: String) = URLEncoder.encode(text, Charsets.UTF_8).replace("+", "%20")

        fun connect(vararg options: Pair<String, Any?>): Ingestion {
            val config =
                IngestionConfig(
                    apiKey = "dodo_test_kotlin",
                    environment = "test_mode",
                    eventName = "api_call",
                    options = mapOf("base_url" to url, "durability" to "memory") + options,
                    onAlarm = { _, _ -> },
                )
            return Ingestion(config)
        }

        /** Runs with a client, and lets it go within a second whatever has become of its calls. */
        fun <T> connected(
            vararg options: Pair<String, Any?>,
            use: (Ingestion) -> T,
        ): T {
            val ingestion = connect(*options)
            try {
                return use(ingestion)
            } finally {
                kotlinx.coroutines.runBlocking { runCatching { ingestion.close(GRACE) } }
            }
        }

        private val GRACE: Duration = 1.seconds
    }
}
